"""Read a bundle's reference: the bins and histograms of its training rows, which later keys are compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.compute import drift
from platform_assets.storage.artifacts import ArtifactStore, sha256

if TYPE_CHECKING:
    from platform_assets.compute.learn import Learned


@dataclass(frozen=True, kw_only=True)
class Model:
    """A bundle's reference.

    Attributes:
        digest: of the bundle.
        bins: sha256 of the learned bins; histograms are comparable only on the same bins.
    """

    digest: str
    bins: str
    learned: Learned
    reference: drift.Reference


def read(store: ArtifactStore, digest: str) -> Model | None:
    """Load a bundle's reference; None if it was sealed without one."""
    from platform_assets.compute.learn import Learned

    bundle = store.bundle(digest)
    if "reference.json" not in bundle.names:
        return None
    learned = bundle.read("learned.json")
    document: drift.ReferenceDocument = json.loads(bundle.read("reference.json"))
    return Model(
        digest=digest,
        bins=sha256(learned),
        learned=Learned.from_json(json.loads(learned)),
        reference=drift.Reference.from_json(document),
    )
