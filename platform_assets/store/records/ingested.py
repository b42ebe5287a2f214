"""Define how far the prediction log has been ingested."""

from __future__ import annotations

from msgspec import field

from platform_assets.base import naming
from platform_assets.store.records.base import Part, Record, RecordKind
from platform_assets.store.records.claims import Remark, Skipped


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
        offsets: ingested bytes, by file of the log; for segments, only of the files in this batch.
        rows: number of new rows, in `keys`; for segments, of rows before repeated answers are dropped.
        left_out: number of invalid lines or parts; the first of them are in `left_out_named`.
        claim: number of the claim whose segments these are; 0 for lines of local files.
        segments: number of segments taken in.
        skipped: segments that cannot be used.
        waiting: segments that only newer code reads; they are tried again.
        remarks: about segments that repeat bytes, or came out of order.
    """

    offsets: dict[str, int]
    rows: int
    keys: list[str]
    left_out: int
    left_out_named: list[LeftOut]
    claim: int = 0
    segments: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


INGESTED = RecordKind(naming.INGESTED, Ingested)
