"""Find and read what backtest steps wrote: a fit once per fingerprint, its scores once per set of scored rows.

Imports no torch, for modules that only read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from platform_assets.records.base import Number
from platform_assets.records.models import FITS, SCORES, Fit
from platform_assets.storage.artifacts import ArtifactStore, canonical, sha256
from platform_assets.storage.ledgers import Ledgers

FORMAT = 2
"""Raise it when a fit is scored in another way: old scores are then computed again."""


class FitScores(msgspec.Struct, frozen=True, kw_only=True):
    """A fit and its scores.

    Attributes:
        fit, scores: sha256 of manifests.
        cpu_s: of all attempts at the fit: reading rows, learning and training; without imports and scoring.
    """

    fit: str
    scores: str
    cpu_s: Number


def ledgers_of(root: str, product: str) -> Ledgers:
    """Return the ledgers that hold fits and scores."""
    return Ledgers(root, product)


def address(fit: str, *, features: Mapping[str, str], outcomes: Mapping[str, str]) -> str:
    """Return the key of a fit's scores.

    Args:
        fit: sha256 of its manifest.
        features, outcomes: content digests of the scored keys.
    """
    return sha256(canonical({"format": FORMAT, "fit": fit, "features": dict(features), "outcomes": dict(outcomes)}))


def fit(store: ArtifactStore, ledgers: Ledgers, fingerprint: str) -> Fit | None:
    """Return the record of a fit; None if there is none whose blobs can be read."""
    record = ledgers.of(FITS).read(fingerprint)
    return record if record is not None and store.is_whole(record.manifest, ("weights", "learned")) else None


def find(
    store: ArtifactStore,
    ledgers: Ledgers,
    fingerprint: str,
    *,
    features: Mapping[str, str],
    outcomes: Mapping[str, str],
) -> FitScores | None:
    """Return a fit with its scores, or None unless both exist and can be read."""
    fitted = fit(store, ledgers, fingerprint)
    if fitted is None:
        return None
    scored = ledgers.of(SCORES).read(address(fitted.manifest, features=features, outcomes=outcomes))
    if scored is None or not store.is_whole(scored.manifest, ("answers", "labels")):
        return None
    return FitScores(fit=fitted.manifest, scores=scored.manifest, cpu_s=fitted.cpu_s)


def read(store: ArtifactStore, manifest: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return by key, in order, the answers float32 [N] or [N, P] and labels [N] of its labelled rows.

    Args:
        manifest: `scores` from `find`.
    """
    document = store.get_json(manifest)
    answers = np.frombuffer(store.get(document["answers"]), dtype="<f4")
    if document["width"] is not None:
        answers = answers.reshape(-1, document["width"])
    labels = np.frombuffer(store.get(document["labels"]), dtype="<f8")
    ends = np.cumsum(document["rows"])
    return {
        key: (answers[end - count : end], labels[end - count : end])
        for key, count, end in zip(document["keys"], document["rows"], ends, strict=True)
    }
