"""Define finished trainings: parameters, curve, quality, code and data of each, and the manifest of its blobs."""

from __future__ import annotations

import msgspec

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Record, RecordKind

WorldSizes = list[tuple[int, int]]
"""How many processes shared a fit: the steps done when a number of them began, and that number, in order."""


def continued(before: WorldSizes, done: int, processes: int) -> WorldSizes:
    """Return the numbers of processes of a fit that goes on after some steps; one that took no step is left out."""
    kept = [(begun, number) for begun, number in before if begun < done]
    return kept if kept and kept[-1][1] == processes else [*kept, (done, processes)]


class Checkpoint(Record, frozen=True, kw_only=True):
    """The checkpoint of a training's fingerprint.

    Attributes:
        manifest: sha256 of the manifest that names its blobs.
        world_sizes: of a fit that was stopped and went on in a profile with another number of processes; others: none.
    """

    manifest: str
    world_sizes: WorldSizes = msgspec.field(default_factory=list)


class Computed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where and how numbers were computed; `world_size` is the number of processes."""

    device: str
    precision: str
    world_size: int = 1


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Content digests by key, of training and holdout keys."""

    features: dict[str, str]
    outcomes: dict[str, str]


class CheckpointManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint's inputs, and the sha256 of its blobs: weights, learned preprocessing, baselines, configuration.

    `weights` names a torch module's one file, or each file of another learner's model. `history` has losses per epoch.
    """

    format: int = 1
    product: str
    cutoff: str
    weights: str | dict[str, str]
    learned: str
    baselines: str
    config: str
    computed: Computed
    data: Data
    known_before: str | None
    training_keys: list[str]
    holdout_keys: list[str]
    history: list[dict[str, Number]]


CHECKPOINTS = RecordKind(naming.CHECKPOINTS, Checkpoint)


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """The largest difference between graph and model, over all rows and batch sizes.

    Numbers in the label's unit are divided by its standard deviation, and by their own size where that is larger,
    because a float32 has seven digits.
    """

    rows: int
    max_abs_difference: float
    batches: tuple[int, ...]


LOOP, EXPERIMENT = "loop", "experiment"
"""Purposes: a training that may be released, and one of `driftline train`."""


Parameters = dict[str, Number | str | bool | None]
"""A learner's own parameters and those of `Training`, by dotted name; functions by name."""


class Training(Record, frozen=True, kw_only=True):
    """A finished training.

    Attributes:
        fingerprint: of code, data and configuration; its attempts have it too.
        purpose: `loop` or `experiment`.
        learner: name of its class.
        code: digest of what made the model.
        data: digest over the contents of all keys.
        checkpoint: digest of its manifest.
        rows: learned from and validated on.
        curve: losses by epoch or round.
        quality: the task's measures on the holdout, after average precision and base rate where a class is rare
            (`training.rare_classes`); empty without labels there.
        cpu_s: of the process that finished it; attempts before it are in the ledger of attempts.
    """

    fingerprint: str
    cutoff: str
    purpose: str
    at_utc: str
    profile: str
    learner: str
    parameters: Parameters
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
