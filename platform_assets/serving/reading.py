"""Read JSON of any content, value by value, for `diagnosis`.

Values are Python's own, with duplicate keys and numbers of any length remembered, and a sentence for text that is not
JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

from platform_assets.serving.requests import Refused

_DIGITS_MAX = 4000
_BLANKS = re.compile(r"[ \t\r\n]*")
_TOKEN = 16
"""No word or mark of JSON is longer: an error this close to a cut may be caused by the cut."""
_DEEPEST = 100
"""Levels of lists and objects in one value; a request needs four. Python's own limit differs between its versions."""
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class JsonObject(dict[str, Any]):
    """A JSON object that remembers a duplicate key."""

    duplicate: str | None = None


class Reading:
    """Reads JSON values from a text one by one, none longer than a row may be."""

    def __init__(self, text: str, longest: int) -> None:
        self._text, self._max = text, longest
        self.at = 0

    def skip_to(self, char: str) -> bool:
        """Skip blanks and return whether this character follows."""
        blanks = _BLANKS.match(self._text, self.at)
        self.at = self.at if blanks is None else blanks.end()
        return self._text.startswith(char, self.at)

    def value(self, path: str) -> Any:
        """Return the value that follows, or the refusal of what is not a value."""
        self.skip_to("")
        piece = self._text[self.at : self.at + self._max]
        is_cut = self.at + self._max < len(self._text)
        if _is_deep(piece):
            return Refused(422, "the body is nested too deeply; expected a JSON object, or a list of them.")
        try:
            value, end = _DECODER.raw_decode(piece)
        except json.JSONDecodeError as problem:
            if is_cut and (problem.pos > len(piece) - _TOKEN or problem.msg.startswith("Unterminated")):
                return Refused(
                    422,
                    f"{path or 'the body'} is longer than {self._max} characters; expected a shorter row: its fields "
                    "need no more.",
                    path or None,
                )
            return self.broken(problem.msg, self.at + problem.pos)
        self.at += end
        return value

    def rest(self) -> Refused | None:
        """Return the refusal of anything after the end, or None."""
        self.skip_to("")
        return None if self.at == len(self._text) else self.broken("Extra data", self.at)

    def broken(self, reason: str, at: int) -> Refused:
        """Return the refusal of a text that is not JSON at an offset."""
        line, column = self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)
        return Refused(422, f"the body is not JSON: {reason} at line {line}, column {column}.")


def _is_deep(text: str) -> bool:
    """Return whether the value at the start of a text has too many levels."""
    depth = 0
    for mark in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if not 0 < depth <= _DEEPEST:
            return depth > _DEEPEST
    return False


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    result = JsonObject(pairs)
    if len(result) < len(pairs):
        names: set[str] = set()
        result.duplicate = next(name for name, _ in pairs if name in names or names.add(name))  # type: ignore[func-returns-value]  # None is falsy
    return result


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS_MAX else float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole)
