"""Write counts, keys and grains in sentences, the same way in messages, pages and sensors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

NOUNS = {"daily": "day", "hourly": "hour", "batch": "batch"}
"""What a key is called, by the kind of grain."""

MAX_CHARACTERS = 400
_LEFT_OUT = " ... "


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 day`, `1,200 rows`, `2 batches`."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def meant(word: str, names: Iterable[str]) -> str:
    """Return the question which of the names was meant, after a space; nothing where none is similar."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def in_words(name: str) -> str:
    """Return a name as the beginning of a sentence: `price_eur`, `Price eur`."""
    return name.replace("_", " ").capitalize()


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("ch", "ss")) else f"{noun}s"


def span(keys: Sequence[str]) -> str:
    """Return contiguous keys by their ends: `2013-03-17`, `2013-03-17 to 2013-03-19`."""
    return keys[0] if keys[0] == keys[-1] else f"{keys[0]} to {keys[-1]}"


def span_in_short(first: str, last: str) -> str:
    """Return a range of keys for a narrow column: `2013-03-02…09`, without what the ends share."""
    if first == last:
        return first
    parts, others = (re.split("(?<=[-T])", key) for key in (first, last))
    shared = 0
    while parts[shared] == others[shared]:
        shared += 1
    return f"{first}…{''.join(others[shared:])}"


def one_line(message: str) -> str:
    """Return a message as part of a sentence: no line breaks, no full stop, at most 400 characters.

    The middle of a longer one is left out: a pod's own words come first, and the cause often last.
    """
    line = " ".join(message.split()).rstrip(". ")
    if len(line) <= MAX_CHARACTERS:
        return line
    rest = MAX_CHARACTERS - len(_LEFT_OUT)
    return f"{line[: rest // 2].rstrip()}{_LEFT_OUT}{line[-(rest - rest // 2) :].lstrip()}"
