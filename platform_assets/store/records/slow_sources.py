"""Define the file of sources that hold a product's ticks up; mutable, and only a hint."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Part, Record, RecordKind


class SlowSource(Part, frozen=True, kw_only=True):
    """A source that is slow, or that could not be asked.

    Attributes:
        problem: why it could not be asked; None where it was slow.
        seconds, calls: how long the first such look waited for it, and for how many calls.
        at_utc: when that was, by the product's clock.
    """

    source: str
    problem: str | None = None
    seconds: Number
    calls: int
    at_utc: str


class SlowSources(Record, frozen=True, kw_only=True):
    """The sources that were slow in the newest look."""

    sources: list[SlowSource]


SLOW_SOURCES = RecordKind(naming.SLOW_SOURCES, SlowSources)
