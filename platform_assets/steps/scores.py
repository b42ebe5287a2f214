"""Find and read what the steps of a backtest left: a fit once a fingerprint, its scores once a set of scored rows.

Belongs here: addresses and blobs. Does not belong here: fitting or scoring (`steps.backtest`), or torch, for whoever
only reads.
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
"""Raised by whoever changes how a fit is scored: old scores are then made again."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is there of a fit and its scores.

    Attributes:
        fit, scores: sha256 of manifests.
        cpu_s: of all attempts at the fit: reading rows, learning and training; neither imports nor scoring.
    """

    fit: str
    scores: str
    cpu_s: Number


def ledgers_of(root: str, product: str) -> Ledgers:
    """Return the ledgers in which fits and scores stand."""
    return Ledgers(root, product)


def address(fit: str, *, features: Mapping[str, str], outcomes: Mapping[str, str]) -> str:
    """Return the key under which the scores of a fit stand.

    Args:
        fit: sha256 of its manifest.
        features, outcomes: content digests of the scored keys.
    """
    return sha256(canonical({"format": FORMAT, "fit": fit, "features": dict(features), "outcomes": dict(outcomes)}))


def fit(store: ArtifactStore, ledgers: Ledgers, fingerprint: str) -> Fit | None:
    """Return the record of a fit; None without one whose blobs can be read."""
    found = ledgers.of(FITS).read(fingerprint)
    return found if found is not None and store.is_whole(found.manifest, ("weights", "learned")) else None


def find(
    store: ArtifactStore,
    ledgers: Ledgers,
    fingerprint: str,
    *,
    features: Mapping[str, str],
    outcomes: Mapping[str, str],
) -> Found | None:
    """Return what is there of a fit and its scores, or None unless both are and can be read."""
    fitted = fit(store, ledgers, fingerprint)
    if fitted is None:
        return None
    scored = ledgers.of(SCORES).read(address(fitted.manifest, features=features, outcomes=outcomes))
    if scored is None or not store.is_whole(scored.manifest, ("answers", "labels")):
        return None
    return Found(fit=fitted.manifest, scores=scored.manifest, cpu_s=fitted.cpu_s)


def read(store: ArtifactStore, manifest: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return by key, in order, the answers float32 [N] or [N, P] and labels [N] of its labelled rows.

    Args:
        manifest: `scores` from `find`.
    """
    told = store.get_json(manifest)
    said = np.frombuffer(store.get(told["answers"]), dtype="<f4")
    if told["width"] is not None:
        said = said.reshape(-1, told["width"])
    labels = np.frombuffer(store.get(told["labels"]), dtype="<f8")
    ends = np.cumsum(told["rows"])
    return {
        key: (said[end - count : end], labels[end - count : end])
        for key, count, end in zip(told["keys"], told["rows"], ends, strict=True)
    }
