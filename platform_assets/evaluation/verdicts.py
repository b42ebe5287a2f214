"""Find the verdict that allows a release, or refuse."""

from __future__ import annotations

import dagster as dg

from platform_assets.base import naming
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.store.history.reader import History
from platform_assets.store.records.verdicts import Verdict
from platform_assets.store.tables import MissingPartitions, TableStore

PROOFS = ("onnx", "evaluation", "service")
"""Stages whose records of one cutoff must be of the same bundle; the first seals it."""


def verdict_of_cutoff(tables: TableStore, history: History, cutoff: str) -> Verdict:
    """Return the verdict on a cutoff's bundle; refuse a bundle that was not proved to serve."""
    product = history.product
    records = {name: record for name in PROOFS for record in tables.records(name, [cutoff]).values()}
    if missing := [name for name in PROOFS if name not in records]:
        raise MissingPartitions(product, " and ".join(missing), {cutoff})
    digest = records["onnx"].content_digest
    if stale := [name for name in PROOFS[1:] if records[name].inputs.get("bundle") != digest]:
        raise dg.Failure(
            f"another bundle than {digest} is named by {' and '.join(stale)} of {cutoff}; "
            f"run {naming.job('retrain', product)} for this cutoff again."
        )
    return _on_record(history, digest)


def _on_record(history: History, digest: str) -> Verdict:
    product, verdict = history.product, history.verdict(digest)
    if verdict is None:
        raise dg.Failure(
            f"{digest!r} has no verdict in {product}; only an evaluated bundle can be released. "
            f"Materialise its evaluation first ({naming.job('retrain', product)})."
        )
    return verdict


def releasable_verdict(artifacts: ArtifactStore, history: History, digest: str) -> Verdict:
    """Return the passing verdict on a digest that a person wants to release, or refuse."""
    verdict = _on_record(history, digest)
    if not verdict.passed:
        raise dg.Failure(
            f"{digest} failed its evaluation and is not released: {' '.join(verdict.reasons)}",
            metadata={"digest": digest, "passed": False},
        )
    try:
        artifacts.bundle(digest)
    except ArtifactProblem as problem:
        raise dg.Failure(f"{digest} has a verdict but cannot be released: {problem}") from problem
    return verdict
