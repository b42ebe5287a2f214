"""Define finished trainings: each names the manifest of its blobs."""

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
