"""Lay Python out as `ruff format` leaves it at 88 columns, where no formatter is installed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len  # as ruff does, a Chinese letter counts for two columns

WIDTH = 88


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
        pad, inner = " " * indent, " " * (indent + 4)
        if cell_len(whole := f"{pad}{self}{tail}") <= WIDTH:
            return [whole]
        one = f"{inner}{', '.join(map(str, self.arguments))}"
        if cell_len(one) <= WIDTH and not self.is_tuple:
            return [f"{pad}{self.head}(", one, f"{pad}){tail}"]
        items = [
            line
            for argument in self.arguments
            for line in (argument.lines(indent + 4, ",") if isinstance(argument, Call) else [f"{inner}{argument},"])
        ]
        return [f"{pad}{self.head}(", *items, f"{pad}){tail}"]


def comment(text: str, *, indent: int = 0) -> list[str]:
    """Return a comment's lines."""
    pad = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ", break_long_words=False)


def noted(line: str, note: str) -> list[str]:
    """Return a line with a comment, next to it or above it."""
    if cell_len(whole := f"{line}  # {note}") <= WIDTH:
        return [whole]
    return [*comment(note[0].upper() + note[1:], indent=len(line) - len(line.lstrip())), line]


def text(value: str) -> str:
    """Return a string as ruff quotes it: in double quotes, unless single ones need fewer escapes."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    return quote + "".join(f"\\{quote}" if letter == quote else repr(letter)[1:-1] for letter in value) + quote


def number(value: float) -> str:
    """Return a number as a person writes it: `2_000`, `0.5`."""
    return f"{int(value):_}" if value == int(value) else repr(float(value))
