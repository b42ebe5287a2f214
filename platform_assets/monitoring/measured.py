"""Measure answers against outcomes: of one key, and of a trailing window of keys.

Which rows count is `monitoring.answers`; single statistics are `evaluation.measures` and `evaluation.clustered`.

Missing numbers stay missing: no labels, no quality; one class, no ranking; one key, no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec
import polars as pl
from msgspec.structs import replace

from platform_assets.evaluation import paired, slices
from platform_assets.monitoring import answers
from platform_assets.store.records.performance import Interval, Measured, Promised, Window

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.evaluation.measures.base import Measures
    from platform_assets.evaluation.measures.measure import Bin, Decided
    from platform_assets.evaluation.slices import SliceRow
    from platform_assets.store.records import base


def measure(rows: pl.DataFrame, measures: Measures) -> Measured:
    """Return the numbers of one key, without its window and its comparison of features."""
    labelled = answers.labelled(rows)
    main = answers.main_rows(rows)
    models: list[base.Row] = []
    for digest in rows["digest"].unique(maintain_order=True):
        part = rows.filter(pl.col("digest") == digest)
        known = answers.labelled(part)
        quality = measures.quality(*_pairs(known, measures)) if known.height else {}
        short = {name: quality.get(name) for name in (measures.headline.name, "log_loss")}
        models.append(
            {"digest": digest, "rows": part.height, "labelled": known.height, **short}
            | {"expected_log_loss": _promise(known, measures)[0]}
        )
    expected, excess = _promise(main, measures)
    return Measured(
        rows=rows.height,
        labelled=labelled.height,
        labels=cast("dict[str, base.Number | dict[str, int] | None]", measures.task.summary(labelled["label"]))
        if labelled.height
        else {},
        digest=answers.main_digest(rows),
        quality=measures.quality(*_pairs(main, measures)) if main.height else None,
        decided=cast("base.Decided", measures.decided(*_pairs(main, measures))) if main.height else None,
        expected_log_loss=expected,
        excess_log_loss=excess,
        models=models,
    )


def window(
    by_key: Mapping[str, pl.DataFrame], digest: str | None, measures: Measures, *, confidence: float
) -> Window | None:
    """Measure several keys together; None when no row has a label.

    Args:
        by_key: joined rows of the window's keys, in order; each key counts with its main rows.
        digest: the bundle that is tested against its own answers.
        confidence: of the intervals.
    """
    labelled_by_key = {key: main for key, rows in by_key.items() if (main := answers.main_rows(rows)).height}
    if not labelled_by_key:
        return None
    rows, keys = answers.stacked(labelled_by_key)
    label, answer = _pairs(rows, measures)
    values: dict[str, Interval | None] = {}
    # Rows of one key are not independent, so one key gives no interval.
    if len(labelled_by_key) < paired.FEWEST_KEYS:
        for measure in measures.every:
            value = measure.value(*measures.task.checked(label, answer))
            values[measure.name] = None if value is None else Interval(value=value, low=None, high=None)
    else:
        estimates = measures.estimates(label, answer, keys.to_numpy(), confidence=confidence)
        values = msgspec.convert(estimates, dict[str, Interval | None], from_attributes=True)
    return Window(
        key_names=list(by_key),
        keys=len(labelled_by_key),
        first=min(labelled_by_key),
        last=max(labelled_by_key),
        rows=rows.height,
        quality=values,
        model=assess_bundle(by_key, digest, measures, confidence=confidence),
    )


def assess_bundle(
    by_key: Mapping[str, pl.DataFrame], digest: str | None, measures: Measures, *, confidence: float = 0.95
) -> Promised | None:
    """Test one bundle against what its answers promise (`Task.test_promises`), over all labelled rows it answered.

    Args:
        by_key: joined rows, keys in order.
        digest: of the bundle.
        confidence: of the intervals of effects.

    Returns:
        None if it answered no labelled row.
    """
    if digest is None:
        return None
    is_from_bundle = pl.col("digest") == digest
    labelled_by_key = {
        key: part for key, rows in by_key.items() if (part := answers.labelled(rows.filter(is_from_bundle))).height
    }
    if not labelled_by_key:
        return None
    rows, keys = answers.stacked(labelled_by_key)
    label, answer = _pairs(rows, measures)
    promised = assess_answers(label, answer, keys.to_numpy(), measures, confidence=confidence)
    return replace(promised, digest=digest, rows=rows.height)


def assess_answers(
    label: np.ndarray, answer: np.ndarray, key: np.ndarray, measures: Measures, *, confidence: float = 0.95
) -> Promised:
    """Return `assess_bundle` of labels, answers and keys [N], without `digest` and `rows`."""
    losses, expected = float(measures.task.losses(label, answer).mean()), float(measures.entropies(answer).mean())
    keys = len(set(key.tolist()))
    tests = measures.test_promises(label, answer, key, confidence=confidence) if keys >= paired.FEWEST_KEYS else {}
    return Promised(
        keys=keys,
        log_loss=losses,
        expected_log_loss=expected,
        excess=losses - expected,
        p_value=tests["log_loss"].p_value if tests else None,
        tests=tests,
    )


def by_slice(rows: pl.DataFrame, columns: Sequence[str], measures: Measures) -> list[SliceRow]:
    """Return the measures of labelled rows per slice (`slices.slice_table`); empty without rows or slices."""
    if rows.is_empty() or not columns:
        return []
    groups = {name: slices.group(rows[name]) for name in columns}
    return slices.slice_table(*_pairs(rows, measures), groups, measures)


def calibration(rows: pl.DataFrame, measures: Measures) -> list[Bin]:
    """Compare promised with observed rates of labelled rows (`Task.calibration_table`); needs at least one row."""
    return measures.calibration_table(*_pairs(rows, measures))


def decided(rows: pl.DataFrame, measures: Measures) -> Decided:
    """Return the decision measures of labelled rows (`Measures.decided`); needs at least one row."""
    return measures.decided(*_pairs(rows, measures))


def _pairs(rows: pl.DataFrame, measures: Measures) -> tuple[np.ndarray, np.ndarray]:
    return measures.task.labels_of(rows["label"]), measures.task.answers_of(rows)


def _promise(rows: pl.DataFrame, measures: Measures) -> tuple[float, float] | tuple[None, None]:
    """Return the log loss the model expects, and by how much it misses that."""
    if rows.is_empty():
        return None, None
    label, answer = _pairs(rows, measures)
    expected = float(measures.entropies(answer).mean())
    return expected, float(measures.task.losses(label, answer).mean()) - expected
