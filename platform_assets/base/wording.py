"""Write counts, keys and grains in sentences, the same way in messages, pages and sensors."""

from __future__ import annotations

from collections.abc import Sequence

NOUNS = {"daily": "day", "hourly": "hour", "batch": "batch"}
"""What a key is called, by the kind of grain."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 day`, `1,200 rows`, `2 batches`."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("ch", "ss")) else f"{noun}s"


def span(keys: Sequence[str]) -> str:
    """Return contiguous keys by their ends: `2013-03-17`, `2013-03-17 to 2013-03-19`."""
    return keys[0] if keys[0] == keys[-1] else f"{keys[0]} to {keys[-1]}"
