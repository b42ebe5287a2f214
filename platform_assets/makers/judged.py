"""Say what was found about one key: checks, indexes of drift, and the verdict that follows.

Belongs here: one key's findings and the notes of its record. Does not belong here: finding them (`judgement`).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from platform_assets.compute import drift, faults
from platform_assets.makers.reference import Model
from platform_assets.records import judgements

FINE, DRIFT, ALERT_FAULT = "fine", "drift", "alert_fault"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What was found about one key.

    Attributes:
        checks: every check, the failing ones first.
        index: of the features; None without a model, for a faulty key, or with too few keys.
        mix: of the answers that were served, likewise.
        model: whose reference the index is against.
    """

    checks: tuple[faults.Check, ...]
    index: drift.Index | None
    mix: drift.Index | None
    model: Model | None

    @property
    def failing(self) -> tuple[faults.Check, ...]:
        """The failing checks, the primary first."""
        return faults.failing(self.checks)

    @property
    def verdict(self) -> str:
        """A fault comes before drift: of broken data nothing else can be said."""
        if self.failing:
            return ALERT_FAULT
        return DRIFT if any(each is not None and each.is_drift for each in (self.index, self.mix)) else FINE

    def notes(self, sketch_digest: str, *, was_faulty: bool) -> judgements.Judgement:
        """Return what the key's record tells."""
        failing = self.failing
        return judgements.Judgement(
            verdict=self.verdict,
            is_faulty=bool(failing),
            was_faulty=was_faulty or bool(failing),
            faults=len(failing),
            primary=failing[0].told() if failing else None,
            index=_indexed(self.index),
            mix=_indexed(self.mix),
            reference=self.model.digest if self.model else None,
            sketch=sketch_digest,
            bins=self.model.bins if self.model else None,
        )


def _indexed(index: drift.Index | None) -> judgements.Indexed | None:
    return msgspec.convert(index, judgements.Indexed | None, from_attributes=True)
