"""Read what a bundle says about the rows that its model was trained on.

Belongs here: the bins and histograms by which later keys are compared. Does not belong here: comparing (`judgement`).
"""

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
    """What a bundle says about its training rows.

    Attributes:
        digest: of the bundle.
        bins: sha256 of the learned bins, which every histogram must share.
    """

    digest: str
    bins: str
    learned: Learned
    reference: drift.Reference


def read(store: ArtifactStore, digest: str) -> Model | None:
    """Return what a bundle says; None for one that was sealed without a reference, or with one of another format."""
    from platform_assets.compute.learn import Learned

    bundle = store.bundle(digest)
    if "reference.json" not in bundle.names:
        return None
    learned = bundle.read("learned.json")
    told: drift.ReferenceDocument = json.loads(bundle.read("reference.json"))
    if told.get("format") != drift.FORMAT:
        return None
    return Model(
        digest=digest,
        bins=sha256(learned),
        learned=Learned.from_json(json.loads(learned)),
        reference=drift.Reference.from_json(told),
    )
