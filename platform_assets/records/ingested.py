"""Define how far the prediction log has been ingested."""

from __future__ import annotations

from platform_assets import naming
from platform_assets.records.base import Part, Record, RecordKind


class LeftOut(Part, frozen=True, kw_only=True):
    """A line, or part of one, that is not a valid prediction: reported, and never a reason to stop.

    Attributes:
        file: its name in the log's folder.
        offset: where the line starts, in bytes.
        reason: what came and what was expected.
    """

    file: str
    offset: int
    reason: str


class Ingested(Record, frozen=True, kw_only=True):
    """One batch of ingested lines.

    Attributes:
        offsets: ingested bytes, by file of the log.
        rows: number of new rows, in `keys`.
        left_out: number of invalid lines or parts; the first of them are in `left_out_named`.
    """

    offsets: dict[str, int]
    rows: int
    keys: list[str]
    left_out: int
    left_out_named: list[LeftOut]


INGESTED = RecordKind(naming.INGESTED, Ingested)
