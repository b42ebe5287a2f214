"""Decide which service processes a key still waits for, from what their segments say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

SILENCE = timedelta(seconds=180)
"""A process that said no goodbye counts as alive for so long after its last segment: three heartbeats."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The time of a key; `start` counts, `end` does not."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of a service, all moments by the store's clock.

    Attributes:
        first, last: the times of its first and its last segment.
        covers_until: every answer that it gave before this moment is in the store.
        has_left: whether it said goodbye.
        clock_offset_s (s): by how much the store's clock is ahead of its own; None if it is unknown.
        kind: of its newest segment, such as `hello`.
        release: number of the release that it served then; None if no release chose its model.
    """

    name: str
    first: datetime
    last: datetime
    covers_until: datetime
    has_left: bool
    clock_offset_s: float | None
    kind: str = ""
    release: int | None = None

    def is_alive_in(self, span: Span) -> bool:
        """Tell whether it may have answered in a key."""
        until = self.last if self.has_left else self.last + SILENCE
        return self.first < span.end and until >= span.start

    def is_complete(self, span: Span) -> bool:
        """Tell whether all of its answers in a key are in the store."""
        return self.has_left or self.covers_until >= span.end


def incomplete(processes: Iterable[Process], span: Span) -> list[str]:
    """Return the names of the processes that were alive in a key and have not sent everything."""
    alive = (process for process in processes if process.is_alive_in(span))
    return sorted(process.name for process in alive if not process.is_complete(span))


def wrong_clocks(processes: Iterable[Process], limit_s: float) -> dict[str, float]:
    """Return the clock offsets above a limit, by process."""
    offsets = {process.name: process.clock_offset_s for process in processes}
    return {name: offset for name, offset in sorted(offsets.items()) if offset is not None and abs(offset) > limit_s}
