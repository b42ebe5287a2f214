"""Lay Python out in lines of 100 columns: a longer call has its arguments on lines of their own, filled."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Call:
    """A call, or a tuple after a name: `dl.Field(name="a")`, `fields=(a, b)`.

    Attributes:
        head: what stands before the bracket.
        arguments: text of one line, or calls.
        is_tuple: whether one argument alone is followed by a comma.
    """

    head: str
    arguments: Sequence[str | Call]
    is_tuple: bool = False

    def __str__(self) -> str:
        comma = "," if self.is_tuple and len(self.arguments) == 1 else ""
        return f"{self.head}({', '.join(map(str, self.arguments))}{comma})"

    def lines(self, indent: int = 0, tail: str = "") -> list[str]:
        """Return its lines, each in full, with what follows it."""
        pad = " " * indent
        if len(whole := f"{pad}{self}{tail}") <= WIDTH:
            return [whole]
        lines, has_room = [f"{pad}{self.head}("], False
        for argument in self.arguments:
            if has_room and len(longer := f"{lines[-1]} {argument},") <= WIDTH:
                lines[-1] = longer
                continue
            own = argument.lines(indent + 4, ",") if isinstance(argument, Call) else [f"{pad}    {argument},"]
            has_room = len(own) == 1  # nothing follows the end of a call of several lines
            lines += own
        return [*lines, f"{pad}){tail}"]


def comment(text: str, *, indent: int = 0) -> list[str]:
    """Return a comment's lines."""
    begin = f"{' ' * indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=begin, break_long_words=False)


def noted(line: str, note: str) -> list[str]:
    """Return a line with a comment, next to it or above it."""
    if len(whole := f"{line}  # {note}") <= WIDTH:
        return [whole]
    return [*comment(note[0].upper() + note[1:], indent=len(line) - len(line.lstrip())), line]


def text(value: str) -> str:
    """Return a string in double quotes."""
    return json.dumps(value, ensure_ascii=False)


def number(value: float) -> str:
    """Return a number as a person writes it: `2_000`, `0.5`."""
    return f"{int(value):_}" if value == int(value) else repr(float(value))
