"""What steps are told of their work and what they report: structs for the run and the step alike, light to import.

Does not belong here: what every step is told (`instructions.py`), or the work.
"""

from __future__ import annotations

from typing import Self

import msgspec

from platform_assets.records.attempts import Launch
from platform_assets.records.base import Number
from platform_assets.records.values import member
from platform_assets.steps.use import Columns


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """On what a training learns, and how.

    Attributes:
        device: `cpu` or `cuda`, as the spec's profile has accelerators; part of the fingerprint.
        precision: `float32` or `bfloat16`, as the profile says; part of the fingerprint.
        features, outcomes: content digests by key, of training and holdout keys.
        known_before: ISO moment; labels known later do not count. None asks the grain, or takes all for batches.
    """

    product: str
    cutoff: str
    device: str
    precision: str
    training_keys: list[str]
    holdout_keys: list[str]
    features: dict[str, str]
    outcomes: dict[str, str]
    known_before: str | None = None


class Job(Request, frozen=True, kw_only=True):
    """What a training is told.

    Attributes:
        fingerprint: equal means same result: resume or reuse.
        attempt: what the launcher says of this try.
    """

    fingerprint: str
    attempt: Launch | None = None

    @classmethod
    def from_extras(cls, extras: object) -> Self:
        """Return the job that a Pipes context's extras describe; raise `ValueError` naming what is missing."""
        required = (field.name for field in msgspec.structs.fields(cls) if field.required)
        needed = dict.fromkeys(("product", "cutoff", "fingerprint", *required))
        if missing := [name for name in needed if member(extras, name) is None]:
            raise ValueError(f"the training step was started without {', '.join(missing)} in its extras.")
        return msgspec.convert(extras, cls)


class BacktestJob(Job, frozen=True, kw_only=True):
    """What a fit of a backtest is told: a training, whose fingerprint is the fit's, and what to score.

    Attributes:
        scored_features, scored_outcomes: content digests by key, in order, of the keys to score, all at or after the
            cutoff.
    """

    scored_features: dict[str, str]
    scored_outcomes: dict[str, str]

    @classmethod
    def from_extras(cls, extras: object) -> Self:
        """Return the job that a Pipes context's extras describe; raise `ValueError` naming what is missing."""
        if missing := [name for name in ("scored_features", "scored_outcomes") if not member(extras, name)]:
            raise ValueError(f"the backtest step was started without {', '.join(missing)} in its extras.")
        return super().from_extras(extras)


class ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    """What an export is told; `checkpoint` is the sha256 of the manifest that a training left."""

    product: str
    checkpoint: str


class Trained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="result"):
    """What a training reports: the checkpoint, and what stands in it for the asset's metadata.

    Attributes:
        baselines: their training loss.
        use: what the process used; absent of a checkpoint that stood already.
    """

    checkpoint: str
    history: list[dict[str, Number]]
    device: str
    precision: str
    baselines: dict[str, Number]
    is_reused: bool
    resumed_from_step: int | None
    cpu_s: float
    peak_memory_mb: float
    use: Columns | None = None


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far graph and network are apart (`compute.export.Parity`)."""

    rows: int
    max_abs_difference: float
    batches: tuple[int, ...]


class Exported(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """What an export reports; `bundle` is the bundle's digest."""

    bundle: str
    parity: Parity
    onnx_bytes: int
    cpu_s: float
    peak_memory_mb: float
