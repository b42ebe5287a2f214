"""Define what is on record of every training: its parameters, curve, quality on the holdout, code and data."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Document, Number, Record, RecordKind

LOOP, EXPERIMENT = "loop", "experiment"
"""Purposes: a training that may be released, and one of `driftline train`."""


class Training(Record, frozen=True, kw_only=True):
    """A finished training.

    Attributes:
        fingerprint: of code, data and configuration; its attempts have it too.
        purpose: `loop` or `experiment`.
        learner: name of its class.
        parameters: the learner's own and those of `Training`, by dotted name; functions by name.
        code: digest of what made the model.
        data: digest over the contents of all keys.
        checkpoint: digest of its manifest.
        rows: learned from and validated on.
        curve: losses by epoch or round.
        quality: the task's measures on the holdout, after average precision and base rate where a class is rare
            (`training.rare`); empty without labels there.
        cpu_s: of the process that finished it; attempts before it are in the ledger of attempts.
    """

    fingerprint: str
    cutoff: str
    purpose: str
    at_utc: str
    profile: str
    learner: str
    parameters: Document
    code: str
    data: str
    checkpoint: str
    training_keys: int
    holdout_keys: int
    rows: int
    curve: list[dict[str, Number]]
    quality: dict[str, Number | None]
    cpu_s: Number
    wall_s: Number
    peak_memory_mb: Number


TRAININGS = RecordKind(naming.TRAININGS, Training)
