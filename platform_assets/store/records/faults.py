"""Define the records of a key's fault ledger; the newest one counts."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Part, Record, RecordKind


class FailedCheck(Part, frozen=True, kw_only=True):
    """A failed check; `digest` is that of the validated rows of `source`."""

    source: str
    check: str
    column: str | None
    came: str
    expected: str
    digest: str


class FaultRecord(Record, frozen=True, kw_only=True, tag_field="kind"):
    """The members they share; `at_utc` is None for a recording whose clock is not set."""

    product: str
    key: str
    why: str
    by: str
    at_utc: str | None

    @property
    def kind(self) -> str:
        """The record's kind, in one word."""
        return str(self.__struct_config__.tag)


class Fault(FaultRecord, frozen=True, kw_only=True, tag="fault"):
    """The key is faulty: the primary failed check, and all failed checks.

    `episode` is the first of the contiguous keys with the same fault; `since` is the key from which the platform waits
    for a person.
    """

    source: str
    check: str
    column: str | None
    came: str
    expected: str
    checks: tuple[FailedCheck, ...]
    labels_are_broken: bool
    episode: str
    since: str


class Accepted(FaultRecord, frozen=True, kw_only=True, tag="accept"):
    """A person accepted the key as it is."""


class Repair(FaultRecord, frozen=True, kw_only=True, tag="repair"):
    """A person had the key delivered again; it has not been judged yet."""


class Repaired(FaultRecord, frozen=True, kw_only=True, tag="repaired"):
    """The key was judged again and is sound."""


class Nulled(FaultRecord, frozen=True, kw_only=True, tag="null"):
    """Nobody settled record `fault`: one source is left out and the rows stay."""

    fault: int
    source: str


class Dropped(FaultRecord, frozen=True, kw_only=True, tag="drop"):
    """The key is excluded permanently: a person dropped it, or nobody settled record `fault`."""

    fault: int | None = None


FAULTS: RecordKind[FaultRecord] = RecordKind(naming.FAULTS, Fault | Accepted | Repair | Repaired | Nulled | Dropped)
