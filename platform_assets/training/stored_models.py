"""Store a fitted model's files, and read them again."""

from __future__ import annotations

from platform_assets.product.learner import Blobs
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.learners.network import WEIGHTS


def stored_model(store: ArtifactStore, blobs: Blobs) -> str | dict[str, str]:
    """Store a model's files; return what its manifest says of them: `CheckpointManifest.weights`."""
    digests = {name: store.put(data) for name, data in blobs.items()}
    return digests[WEIGHTS] if list(digests) == [WEIGHTS] else digests


def read_model(store: ArtifactStore, weights: str | dict[str, str]) -> dict[str, bytes]:
    """Read a model's files, verified.

    Raises:
        ArtifactProblem: one is missing or changed.
    """
    digests = {WEIGHTS: weights} if isinstance(weights, str) else weights
    return {name: store.get(digest) for name, digest in digests.items()}
