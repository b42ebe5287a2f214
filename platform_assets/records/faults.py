"""What the fault ledger of one key may say; its newest record counts."""

from __future__ import annotations

from platform_assets import naming
from platform_assets.records.base import Part, Record, RecordKind


class FailedCheck(Part, frozen=True, kw_only=True):
    """A check that failed; `digest` is that of the validated rows of `source`."""

    source: str
    check: str
    column: str | None
    came: str
    expected: str
    digest: str


class FaultRecord(Record, frozen=True, kw_only=True, tag_field="kind"):
    """What all of them say; `at_utc` is None for a recording whose clock nobody has set."""

    product: str
    key: str
    why: str
    by: str
    at_utc: str | None

    @property
    def kind(self) -> str:
        """What it says, in one word."""
        return str(self.__struct_config__.tag)


class Fault(FaultRecord, frozen=True, kw_only=True, tag="fault"):
    """The key came broken: its most telling check, and all that failed.

    `episode` is the first of the contiguous keys with the same fault, `since` the key from which on a person is waited
    for.
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


class Suspect(FaultRecord, frozen=True, kw_only=True, tag="suspect"):
    """The key is suspicious; nothing writes this yet."""


class Accepted(FaultRecord, frozen=True, kw_only=True, tag="accept"):
    """A person took the key as it is."""


class Repair(FaultRecord, frozen=True, kw_only=True, tag="repair"):
    """A person had the key delivered again; nobody has judged it yet."""


class Repaired(FaultRecord, frozen=True, kw_only=True, tag="repaired"):
    """The key was judged again and is sound."""


class Nulled(FaultRecord, frozen=True, kw_only=True, tag="null"):
    """Nobody settled record `fault`: a source is left out and the rows stay."""

    fault: int
    source: str


class Dropped(FaultRecord, frozen=True, kw_only=True, tag="drop"):
    """The key stays out for good: a person said so, or nobody settled record `fault`."""

    fault: int | None = None


FAULTS: RecordKind[FaultRecord] = RecordKind(
    naming.FAULTS, Fault | Suspect | Accepted | Repair | Repaired | Nulled | Dropped
)
