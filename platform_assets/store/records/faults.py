"""Define the judgement of a key, the records of its fault ledger, and what the newest of these means for the key."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Part, Record, RecordKind


class Primary(Part, frozen=True, kw_only=True):
    """The primary failed check."""

    source: str
    check: str
    column: str | None
    came: str
    expected: str


class Indexed(Part, frozen=True, kw_only=True):
    """The distance of a window of keys from the training rows, and its percentile among the training windows."""

    mean_psi: Number
    percentile: Number
    windows: int
    limit: Number
    keys: list[str]


class Judgement(Record, frozen=True, kw_only=True):
    """The judgement of a key; a rebuilt record has none of this.

    Attributes:
        verdict: `fine`, `drift` or `alert_fault`.
        is_faulty: whether a check fails.
        was_faulty: whether a check ever failed.
        faults: number of failing checks.
        primary: the primary failed check.
        index, mix: drift of the features, and of the served answers; None without anything to compare with.
        reference: the digest of the model whose training rows were compared.
        sketch: the digest of the key's sketch.
        bins: the digest of the bins of its histograms.
        cpu_s: what judging cost.
    """

    verdict: str | UnsetType = UNSET
    is_faulty: bool | UnsetType = UNSET
    was_faulty: bool | UnsetType = UNSET
    faults: int | UnsetType = UNSET
    primary: Primary | UnsetType | None = UNSET
    index: Indexed | UnsetType | None = UNSET
    mix: Indexed | UnsetType | None = UNSET
    reference: str | UnsetType | None = UNSET
    sketch: str | UnsetType = UNSET
    bins: str | UnsetType | None = UNSET
    cpu_s: Number | UnsetType = UNSET
    is_rebuilt: bool | UnsetType = UNSET

    @property
    def was_ever_faulty(self) -> bool:
        """Whether a check fails or ever failed."""
        return bool(self.is_faulty or self.was_faulty)


JUDGEMENTS = RecordKind("drift", Judgement)


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


REQUEST_INPUT = "asked"
"""The input of a judgement that names the fault record that requested it."""


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The newest record of a key's fault ledger.

    Attributes:
        number: of the record.
    """

    number: int
    record: FaultRecord

    @property
    def kind(self) -> str:
        """The record's kind, in one word."""
        return self.record.kind

    @property
    def is_held(self) -> bool:
        """Whether the key is on hold: a fault, or a new delivery that is not judged yet."""
        return isinstance(self.record, Fault | Repair)

    @property
    def is_excluded(self) -> bool:
        """Whether the key is excluded from reference and training: held, or dropped permanently."""
        return self.is_held or isinstance(self.record, Dropped)

    @property
    def nulled_source(self) -> str | None:
        """The source whose rows of this key are left out of features."""
        return self.record.source if isinstance(self.record, Nulled) else None
