"""Define the notes of a key's partition record, per stage, as their readers get them.

Those of `performance` and `drift` are records of their own (`performance`, `faults`). Members added by later
code are not an error, because records of keys are read by whatever code is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypedDict

import msgspec

from platform_assets.base.problems import UnfitRecord
from platform_assets.store.records.base import Document, Number, Part
from platform_assets.store.records.faults import JUDGEMENTS, Judgement
from platform_assets.store.records.performance import MEASURED, Measured, Value

if TYPE_CHECKING:
    from platform_assets.store.partition_records import PartitionRecord

_NULL = ("decided", "digest", "excess_log_loss", "expected_log_loss", "quality")
UNKNOWN: Document = {**dict.fromkeys(_NULL), "labelled": 0, "labels": {}, "models": [], "rows": 0}
"""Defaults for measurements that a record rebuilt from its rows lacks."""


class Notes(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The notes of any stage; `cpu_s` is the CPU time spent on the key."""

    cpu_s: Number = 0.0

    @classmethod
    def of(cls, record: PartitionRecord) -> Self:
        """Parse a record's notes; raise `UnfitRecord` where a member is missing or of another type."""
        return cls.read(record.notes, f"the record of {record.stage} {record.key}")

    @classmethod
    def read(cls, notes: object, location: str) -> Self:
        """Parse notes; see `of`. `location` is for messages."""
        try:
            return msgspec.convert(notes, cls)
        except msgspec.ValidationError as problem:
            raise UnfitRecord(
                f"{location} has notes that this code does not read: {problem}. It was changed or written by other "
                "code."
            ) from None


class Stored(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Blobs named by the notes of some stage: a key's sketch, and a landed file's copy and origin."""

    sketch: str | None = None
    sha256: str | None = None
    uri: str | None = None


class Raw(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Where a landed file came from, or why a key was closed without it.

    Attributes:
        mark: distinguishes the file from another version at the same location (`objects.mark_of`).
        channel: digest of what the source's own channel delivered then; None for landed files.
        sha256: of the file.
        unreadable: why the file cannot be taken in, and how that is fixed; None if it can.
        undeclared: columns of the file that the source does not declare and that were left out.
    """

    uri: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    arrived_at_utc: str | None = None
    mark: str | None = None
    channel: str | None = None
    is_missing: bool = False
    why: str | None = None
    unreadable: str | None = None
    undeclared: tuple[str, ...] = ()


class Validated(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The number of rows that came, and of those in quarantine, including repeated ones, by what is wrong with them."""

    rows_in: int
    rows_quarantined: int
    rows_repeated: int
    quarantined_by_kind: dict[str, int] = msgspec.field(default_factory=dict)


class Features(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The number of rows put aside, by reason: they have a value that no field declares.

    Attributes:
        gaps: keys of the lookback whose delivery cannot be read, by source; the rows were built without it.
        awaits: the same, where no row is built until it is delivered again or settled.
    """

    rows_put_aside: int = 0
    put_aside_by_reason: dict[str, int] = msgspec.field(default_factory=dict)
    gaps: dict[str, list[str]] = msgspec.field(default_factory=dict)
    awaits: dict[str, list[str]] = msgspec.field(default_factory=dict)


class Requests(TypedDict):
    """A key's requests, those slower than the objective (`slow`), and the seconds with a slow one (`stalls`)."""

    limit_ms: Number
    requests: int
    slow: int
    stalls: int


class Counted(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Counts of a key's answers."""

    latency: Requests | None = None


class Predictions(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Counts of a key's answers, and of those given after the key was closed.

    Attributes:
        folded: up to this claim, the answers of segments are in the rows; 0 for answers of local files.
    """

    late: int = 0
    measured: Counted | None = None
    folded: int = 0


class Drift(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The sha256 of a key's sketch, and the bundle whose training rows it was compared with."""

    sketch: str
    reference: str | None = None


class Service(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A Bento, and its smoke test: number of rows, largest difference from the bundle, one request.

    `stored` is the digest under which the store has the Bento's files.
    """

    tag: str
    asked_rows: int
    max_apart: Number
    request: dict[str, str | dict[str, Value] | None]
    stored: str


def judgement(record: PartitionRecord) -> Judgement:
    """Parse the judgement in a key's record of `drift`."""
    return JUDGEMENTS.read(record.notes, f"the judgement of {record.key}")


def measured(record: PartitionRecord) -> Measured:
    """Parse the measurements of a key."""
    return MEASURED.read({**UNKNOWN, **record.notes}, f"the performance of {record.key}")
