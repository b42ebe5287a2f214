"""Define finished trainings: each names the manifest of its blobs."""

from __future__ import annotations

import msgspec

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Record, RecordKind


class Checkpoint(Record, frozen=True, kw_only=True):
    """The checkpoint of a training's fingerprint; `manifest` is the sha256 of the manifest that names its blobs."""

    manifest: str


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
