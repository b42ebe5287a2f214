"""Define what is on record of a search for settings: what it tried, and what came of each trial."""

from __future__ import annotations

import msgspec

from platform_assets.records.attempts import Attempt
from platform_assets.records.base import Document, Number, Record, RecordKind

FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"


class Tuning(Record, frozen=True, kw_only=True):
    """A search: equal code, data, configuration, space and seed are one search, which goes on where it ended.

    Attributes:
        study: digest of all that.
        space: what is varied, as the product's file declares it.
        learned_keys: how many keys trials learn from.
        judged_keys: the keys that judge them: the last ones before the holdout.
    """

    study: str
    cutoff: str
    at_utc: str
    learner: str
    seed: int
    space: list[Document]
    learned_keys: int
    judged_keys: list[str]


class Trial(Record, frozen=True, kw_only=True):
    """A trial that has ended.

    Attributes:
        values: of what is varied, by name; those of the product's file in the first trial.
        state: `finished`, `pruned` (its curve was worse than most) or `failed`.
        why: of a trial that failed; empty otherwise.
        loss: on the rows that judge, in nats; None unless finished.
        quality: the task's measures on those rows.
        curve: losses by epoch or round.
        cpu_s: of its fit.
    """

    fingerprint: str
    at_utc: str
    values: Document
    state: str
    why: str = ""
    loss: Number | None = None
    quality: dict[str, Number | None] = msgspec.field(default_factory=dict)
    curve: list[dict[str, Number]] = msgspec.field(default_factory=list)
    cpu_s: Number = 0.0


TUNINGS = RecordKind("tunings", Tuning)
TRIALS = RecordKind("trials", Trial)
"""Numbered, in a ledger per study: `trials/STUDY`."""
ATTEMPTS = RecordKind("tuning_attempts", Attempt)
"""Apart from those of trainings: a search makes no model, and does not use up the month's budget."""
