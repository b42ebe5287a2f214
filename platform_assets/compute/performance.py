"""Measure what was answered against what came true: of one key, and of a trailing window of keys.

Belongs here: which numbers are told of joined rows. Does not belong here: whose rows count (`compute.answers`), single
statistics (`compute.metrics`, `compute.clustered`), reading or memoising (`stages.performance`).

Nothing is ever made up: no labels, no quality; one class, no AUC; one key, no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from platform_assets.compute import answers, clustered, metrics, slices


def measure(rows: pl.DataFrame, threshold: float) -> dict[str, Any]:
    """Return the numbers of one key.

    Returns:
        `rows`, `labelled`, `positives` (of all answers); `digest` (the main one); `quality` (`auc`, None with one
        class, `log_loss`, `brier`, `ece`), `at_threshold` (`metrics.at_threshold`), `expected_log_loss` and
        `excess_log_loss` of the main rows, all None without labels; `models`, the same in short by bundle.
    """
    labelled = answers.labelled(rows)
    main = answers.main_rows(rows)
    label, probability = main["label"].to_numpy(), main["probability"].to_numpy()
    has_labels = main.height > 0
    return {
        "rows": rows.height,
        "labelled": labelled.height,
        "positives": int(labelled["label"].sum()),
        "digest": answers.main_digest(rows),
        "quality": _quality(main),
        "at_threshold": metrics.at_threshold(label, probability, threshold) if has_labels else None,
        **_promise(main),
        "models": [
            {"digest": digest, "rows": part.height, **_short(part)}
            for digest in rows["digest"].unique(maintain_order=True)
            for part in [rows.filter(pl.col("digest") == digest)]
        ],
    }


def window(
    by_key: Mapping[str, pl.DataFrame], digest: str | None, *, threshold: float, confidence: float
) -> dict[str, Any] | None:
    """Return how several keys together were answered; None when no row has a label.

    Args:
        by_key: joined rows of the window's keys, in order; each key counts with its main rows.
        digest: the bundle that is tested against itself.
        threshold: from which a probability counts as positive.
        confidence: of the intervals.

    Returns:
        `keys`, `first`, `last`, `rows`; `quality`: by metric `value`, `low`, `high` (these None with one key), or
        None where it is not defined; `model`: from `against_itself`.
    """
    found = {key: main for key, rows in by_key.items() if (main := answers.main_rows(rows)).height}
    if not found:
        return None
    rows, keys = answers.stacked(found)
    told = {"keys": len(found), "first": min(found), "last": max(found), "rows": rows.height}
    values: dict[str, Any]
    if len(found) < 2:
        at = metrics.at_threshold(rows["label"].to_numpy(), rows["probability"].to_numpy(), threshold)
        given = {**(_quality(rows) or {}), **{name: at[name] for name in ("accuracy", "precision", "recall")}}
        values = {name: None if value is None else _bare(value) for name, value in given.items()}
    else:
        estimates = clustered.all_metrics(
            rows["label"].to_numpy(),
            rows["probability"].to_numpy(),
            keys.to_numpy(),
            threshold=threshold,
            confidence=confidence,
        )
        values = {
            name: None if one is None else {"value": one.value, "low": one.low, "high": one.high}
            for name, one in estimates.items()
        }
    return {**told, "quality": values, "model": against_itself(by_key, digest, confidence=confidence)}


def against_itself(
    by_key: Mapping[str, pl.DataFrame], digest: str | None, *, confidence: float = 0.95
) -> dict[str, Any] | None:
    """Test one bundle's log loss against what it expects of itself, over all labelled rows that it answered.

    Args:
        by_key: joined rows.
        digest: of the bundle.
        confidence: of the interval of the excess.

    Returns:
        `digest`, `keys`, `rows`, `log_loss`, `expected_log_loss`, `excess`, and `standard_error`, `low`, `high`, `t`,
        `p_value` (one-sided), which are None with one key. None when it answered no labelled row.
    """
    if digest is None:
        return None
    is_its = pl.col("digest") == digest
    found = {key: part for key, rows in by_key.items() if (part := answers.labelled(rows.filter(is_its))).height}
    if not found:
        return None
    rows, keys = answers.stacked(found)
    promise = _promise(rows)
    numbers = {
        "digest": digest,
        "keys": len(found),
        "rows": rows.height,
        "log_loss": metrics.log_loss(rows["label"].to_numpy(), rows["probability"].to_numpy()),
        "expected_log_loss": promise["expected_log_loss"],
        "excess": promise["excess_log_loss"],
    }
    if len(found) < 2:
        return {**numbers, **dict.fromkeys(("standard_error", "low", "high", "t", "p_value"))}
    tested = asdict(
        clustered.excess(
            rows["label"].to_numpy(), rows["probability"].to_numpy(), keys.to_numpy(), confidence=confidence
        )
    )
    return {
        **numbers,
        **{name: tested[name] for name in ("standard_error", "low", "high", "t")},
        "p_value": tested["p"],
    }


def by_slice(rows: pl.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metrics of labelled rows by each slice (`slices.slice_table`); nothing without rows or slices."""
    if rows.is_empty() or not columns:
        return []
    groups = {name: slices.group(rows[name]) for name in columns}
    return slices.slice_table(rows["label"].to_numpy(), rows["probability"].to_numpy(), groups)


def calibration(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return what was predicted beside what happened (`metrics.calibration_table`) of labelled rows; needs one."""
    return metrics.calibration_table(rows["label"].to_numpy(), rows["probability"].to_numpy())


def _quality(rows: pl.DataFrame) -> dict[str, float | None] | None:
    if rows.is_empty():
        return None
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy()
    return {
        "auc": metrics.auc(label, probability) if rows["label"].n_unique() == 2 else None,
        "log_loss": metrics.log_loss(label, probability),
        "brier": metrics.brier(label, probability),
        "ece": metrics.expected_calibration_error(label, probability),
    }


def _promise(rows: pl.DataFrame) -> dict[str, float | None]:
    """Return what the model expects of its log loss, and by how much it misses that."""
    if rows.is_empty():
        return {"expected_log_loss": None, "excess_log_loss": None}
    probability = rows["probability"].to_numpy()
    expected = float(clustered.entropies(probability).mean())
    found = metrics.log_loss(rows["label"].to_numpy(), probability)
    return {"expected_log_loss": expected, "excess_log_loss": found - expected}


def _short(rows: pl.DataFrame) -> dict[str, Any]:
    labelled = answers.labelled(rows)
    quality = _quality(labelled) or {"auc": None, "log_loss": None}
    return {
        "labelled": labelled.height,
        "auc": quality["auc"],
        "log_loss": quality["log_loss"],
        "expected_log_loss": _promise(labelled)["expected_log_loss"],
    }


def _bare(value: float) -> dict[str, float | None]:
    return {"value": value, "low": None, "high": None}
