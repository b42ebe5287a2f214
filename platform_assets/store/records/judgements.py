"""Define the judgement of a key on faults and drift: the notes of its partition record of `drift`."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

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
