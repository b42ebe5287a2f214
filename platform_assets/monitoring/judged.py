"""Hold one key's judgement: its checks, its drift indexes, and the verdict that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from platform_assets.monitoring import drift_index, faults
from platform_assets.store.records import judgements
from platform_assets.training.reference import Model

FINE, DRIFT, ALERT_FAULT = "fine", "drift", "alert_fault"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The judgement of one key.

    Attributes:
        checks: every check, failing ones first.
        index: drift index of the features; None without a model, for a faulty key, or with too few keys.
        mix: drift index of the served answers; None in the same cases.
        model: the model whose training rows the index compares with.
    """

    checks: tuple[faults.Check, ...]
    index: drift_index.Index | None
    mix: drift_index.Index | None
    model: Model | None

    @property
    def failing(self) -> tuple[faults.Check, ...]:
        """The failing checks, primary first."""
        return faults.failing(self.checks)

    @property
    def verdict(self) -> str:
        """The verdict. A fault outranks drift: broken data says nothing about the world."""
        if self.failing:
            return ALERT_FAULT
        return DRIFT if any(index is not None and index.is_drift for index in (self.index, self.mix)) else FINE

    def notes(self, sketch_digest: str, *, was_faulty: bool) -> judgements.Judgement:
        """Return the notes of the key's record."""
        failing = self.failing
        return judgements.Judgement(
            verdict=self.verdict,
            is_faulty=bool(failing),
            was_faulty=was_faulty or bool(failing),
            faults=len(failing),
            primary=failing[0].to_record() if failing else None,
            index=_indexed(self.index),
            mix=_indexed(self.mix),
            reference=self.model.digest if self.model else None,
            sketch=sketch_digest,
            bins=self.model.bins if self.model else None,
        )


def _indexed(index: drift_index.Index | None) -> judgements.Indexed | None:
    return msgspec.convert(index, judgements.Indexed | None, from_attributes=True)
