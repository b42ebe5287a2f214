"""Define the input and the result of steps: structs for the run and the step alike, light to import."""

from __future__ import annotations

from typing import Self

import msgspec

from platform_assets.store.records.attempts import Launch
from platform_assets.store.records.base import Number
from platform_assets.store.records.trainings import LOOP, Parity, WorldSizes
from platform_assets.store.records.values import member


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a training learns from, and how.

    Attributes:
        device: `cpu` or `cuda`, from the profile's accelerators; part of the fingerprint.
        precision: `float32` or `bfloat16`, from the profile; part of the fingerprint.
        features, outcomes: content digests by key, of training and holdout keys.
        known_before: ISO moment; labels known later do not count. None: the grain decides, and batches take all.
        world_size: how many processes share the fit, from the profile; another number goes on from the same saves.
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
    world_size: int = 1


class Job(Request, frozen=True, kw_only=True):
    """Input of a training.

    Attributes:
        module: that defines the product.
        fingerprint: equal fingerprints and numbers of processes mean equal results: resume or reuse.
        attempt: the launcher's facts of this try.
        purpose: of the record of this training; see `store.records.trainings`.
    """

    module: str
    fingerprint: str
    attempt: Launch | None = None
    purpose: str = LOOP

    @classmethod
    def from_extras(cls, extras: object) -> Self:
        """Return the job in a Pipes context's extras; raise `ValueError` that names what is missing."""
        required = (field.name for field in msgspec.structs.fields(cls) if field.required)
        needed = dict.fromkeys(("product", "cutoff", "fingerprint", *required))
        if missing := [name for name in needed if member(extras, name) is None]:
            raise ValueError(f"the training step was started without {', '.join(missing)} in its extras.")
        return msgspec.convert(extras, cls)


class TrialJob(Request, frozen=True, kw_only=True):
    """Input of a trial of a search; its holdout keys are those that judge it, the last of the training keys.

    Attributes:
        module: that defines the product.
        params: what is varied, by name: a number in a range, or which of the choices; none for the file's settings.
        medians: of the judged losses of finished trials, by epoch or round.
    """

    module: str
    params: dict[str, Number]
    medians: list[tuple[int, float]]


class ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    """Input of an export.

    Attributes:
        module: that defines the product.
        checkpoint: sha256 of the manifest that a training wrote.
    """

    product: str
    module: str
    checkpoint: str


class Trained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="result"):
    """Result of a training: the checkpoint, and parts of it for the asset's metadata.

    Attributes:
        baselines: their training loss.
        world_sizes: see `store.records.trainings.Checkpoint`.
        used: what the process used (`steps.use`); absent if the checkpoint existed already.
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
    world_sizes: WorldSizes = []
    used: dict[str, float] | None = None


class Tried(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """Result of a trial; without a loss and a problem it ended early.

    Attributes:
        curve: judged losses by epoch or round.
        loss: mean log loss on the rows that judge it, in nats.
        problem: why it could not be fitted.
    """

    curve: list[tuple[int, float]]
    loss: float | None
    problem: str | None
    cpu_s: float
    peak_memory_mb: float


class Exported(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """Result of an export; `bundle` is the bundle's digest."""

    bundle: str
    parity: Parity
    onnx_bytes: int
    cpu_s: float
    peak_memory_mb: float
