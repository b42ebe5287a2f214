"""Define which segments of the prediction log an ingestion takes in."""

from __future__ import annotations

from msgspec import field

from platform_assets.base import naming
from platform_assets.store.records.base import Part, Record, RecordKind


class Skipped(Part, frozen=True, kw_only=True):
    """A segment that cannot be used. It stays in the store for a person.

    Attributes:
        segment: its path below the storage root.
        reason: what came and what was expected.
    """

    segment: str
    reason: str


class Remark(Part, frozen=True, kw_only=True):
    """Something unusual about a segment that was taken in; see `prediction_log.streams`."""

    segment: str
    remark: str


class Claim(Record, frozen=True, kw_only=True):
    """The segments of one ingestion, written before their rows, so that a killed ingestion is finished by the next one.

    Attributes:
        segments: paths below the storage root.
        skipped: those that cannot be used.
        cursor_ms: the latest time among the names of this and all earlier claims, at most the store's.
        at_utc: the product's moment; answers are late by the decisions made until then.
        newest_batch: the newest batch that had arrived, for numbered batches.
        waiting: segments in a format that only newer code reads, of this and earlier claims. Each ingestion tries them.
        ahead: names of this and earlier claims that sorted after the cursor, until listings begin after them.
        remarks: about segments that repeat bytes, or came out of order.
        streams: the bytes that this and earlier claims took of each of the newest streams.
        folded: up to this claim, all parts were folded into their keys' rows.
    """

    segments: list[str]
    skipped: list[Skipped]
    cursor_ms: int
    at_utc: str
    newest_batch: str | None = None
    waiting: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    streams: dict[str, list[list[int]]] = field(default_factory=dict)
    folded: int = 0


class Pruned(Record, frozen=True, kw_only=True):
    """Up to which claim segments were deleted; a mutable file, and only a hint."""

    claim: int


CLAIMS = RecordKind(naming.CLAIMS, Claim)
PRUNED = RecordKind(naming.PRUNED, Pruned)
