"""Define how far the prediction log is ingested, by which claims of segments, and which processes a key was without."""

from __future__ import annotations

from typing import Literal

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


class Attendance(Record, frozen=True, kw_only=True):
    """What the service's processes had sent when a key was measured for the first time.

    Attributes:
        case: `answers`; `no_answers` (processes sent heartbeats only); `silent` (a model was live, and no process
            sent anything); `unreleased` (no model was live, and no process sent anything).
        ended_at_utc: the key's end.
        processes: how many were alive in the key.
        unheard: those that had not sent everything when the patience was over.
        wrong_clocks (s): by how much the store's clock was ahead of a process's own, where that is above the limit.
    """

    case: Literal["answers", "no_answers", "silent", "unreleased"]
    ended_at_utc: str
    processes: int
    unheard: list[str] = field(default_factory=list)
    wrong_clocks: dict[str, float] = field(default_factory=dict)


class KeyEnd(Record, frozen=True, kw_only=True):
    """When a recording's caller had asked everything about a key, by the wall clock."""

    at_utc: str


ATTENDANCE = RecordKind(naming.ATTENDANCE, Attendance)
KEY_ENDS = RecordKind(naming.KEY_ENDS, KeyEnd)
