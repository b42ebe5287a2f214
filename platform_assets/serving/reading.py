"""Read JSON that the fast path refused with Python's own reader, for `diagnosis`.

It knows NaN, and says where a text stops being JSON. Numbers stay as they were sent, as `msgspec.Raw`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from platform_assets.serving.requests import Refused

_BLANKS = re.compile(r"[ \t\r\n]*")
_CUT = 16
"""No word or mark of JSON is longer: an error this close to a cut may be caused by the cut."""
_DECODER = json.JSONDecoder(parse_int=msgspec.Raw, parse_float=msgspec.Raw, parse_constant=msgspec.Raw)


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
        """Return the value that follows; raise `Refused` if there is none."""
        self.skip_to("")
        piece = self._text[self.at : self.at + self._max]
        is_cut = self.at + self._max < len(self._text)
        try:
            value, end = _DECODER.raw_decode(piece)
        except RecursionError:
            raise Refused(422, "the body is nested too deeply; expected a JSON object, or a list of them.") from None
        except json.JSONDecodeError as problem:
            if is_cut and (problem.pos > len(piece) - _CUT or problem.msg.startswith("Unterminated")):
                raise too_long(path, self._max) from problem
            raise self.broken(problem.msg, self.at + problem.pos) from problem
        self.at += end
        return value

    def since(self, begins: int) -> bytes:
        """Return what was read from a place on."""
        return self._text[begins : self.at].encode("utf-8")

    def end(self) -> None:
        """Raise `Refused` unless only blanks follow."""
        self.skip_to("")
        if self.at < len(self._text):
            raise self.broken("Extra data", self.at)

    def broken(self, reason: str, at: int) -> Refused:
        """Return the refusal of a text that is not JSON at an offset."""
        line, column = self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)
        return Refused(422, f"the body is not JSON: {reason} at line {line}, column {column}.")


def too_long(path: str, longest: int) -> Refused:
    """Return the refusal of a row that is longer than its fields can need."""
    return Refused(
        422,
        f"{path or 'the body'} is longer than {longest} bytes; expected a shorter row: its fields need no more.",
        path or None,
    )
