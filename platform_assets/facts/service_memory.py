"""Estimate the memory of a service's pod from the blobs of its model."""

from __future__ import annotations

from platform_assets.handle import Product
from platform_assets.records.releases import Release
from platform_assets.serving.candidate import SHARE_OF_BLOBS
from platform_assets.serving.sealed import USED

WORKERS = 2
"""Processes of a pod that answer."""
PROCESS_BYTES = 128 * 1024**2
"""Of the parent, each worker and the process that tries a new model, without the model, as if they shared nothing.

Measured: the parent 126 MB and each worker 120 MB, which share most of it: two workers and the parent take 177 MB.
"""


def needed_bytes(product: Product, release: Release) -> float:
    """Return the memory of a pod in which a release's model loads, and in which a next one of its size can be tried."""
    processes = WORKERS + 1  # the third tries the next model
    return (processes + 1) * PROCESS_BYTES + processes * SHARE_OF_BLOBS * model_bytes(product, release)


def model_bytes(product: Product, release: Release) -> int:
    """Return the size of the blobs that a service loads."""
    blobs = product.artifacts.bundle(release.digest).manifest["blobs"]
    return sum(blobs[name]["bytes"] for name in USED if name in blobs)
