"""Estimate the memory of a service's pod from the blobs of its model."""

from __future__ import annotations

from platform_assets.serving.follow.candidate import SHARE_OF_BLOBS
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.releases import Release
from platform_assets.training.sealed import USED

PROCESSES = 2
"""Of a pod: the one that answers, and the one that tries the next model."""
PROCESS_BYTES = 160 * 1024**2
"""Of a process without its model. Measured: 145 MB of the one that answers."""


def needed_bytes(product: ProductStore, release: Release) -> float:
    """Return the memory of a pod in which a release's model loads, and in which a next one of its size can be tried."""
    return PROCESSES * (PROCESS_BYTES + SHARE_OF_BLOBS * model_bytes(product, release))


def model_bytes(product: ProductStore, release: Release) -> int:
    """Return the size of the blobs that a service loads."""
    blobs = product.artifacts.bundle(release.digest).manifest["blobs"]
    return sum(blobs[name]["bytes"] for name in USED if name in blobs)
