"""Follow which bytes of each stream of the prediction log were taken in, and say what is unusual about more.

Only for people: nothing is left out because of it, since ids alone decide which answers count.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_STREAMS = 500
"""How many streams are followed, the newest ones; their names begin with the time of their creation."""
Ranges = list[list[int]]
"""Bytes of a stream as `[first, end]`, ascending and apart; `end` does not count."""


def remark(taken: Ranges, first: int, end: int) -> str:
    """Return what is unusual about a segment's bytes; empty for the usual ones, which follow those before.

    Args:
        taken: of the stream before.
        first, end: of the segment's body.
    """
    if not taken:
        return ""
    last = taken[-1][1]
    again = sum(max(0, min(end, upper) - max(first, lower)) for lower, upper in taken)
    if again:
        count = "all" if again == end - first else f"{again:,}"
        return f"repeats {count} of its {end - first:,} bytes; each answer counts once"
    if first < last:
        return f"comes after later bytes of its stream, which had been taken up to {last:,}"
    return f"comes before bytes {last:,} to {first:,} of its stream" if first > last else ""


def extended(taken: Mapping[str, Ranges], stream: str, first: int, end: int) -> dict[str, Ranges]:
    """Return what is taken with one more segment; the oldest streams are forgotten."""
    merged: Ranges = []
    for lower, upper in sorted([*taken.get(stream, []), [first, end]]):
        if merged and lower <= merged[-1][1]:
            merged[-1] = [merged[-1][0], max(merged[-1][1], upper)]
        else:
            merged.append([lower, upper])
    streams = {**taken, stream: merged}
    return {name: streams[name] for name in sorted(streams)[-MOST_STREAMS:]}
