"""Find fields that alone explain almost the whole label: rarely legitimate but possible, so noted and not refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from platform_assets.product.fields import Field
from platform_assets.product.inputs import Inputs
from platform_assets.training.matrix import categorical_columns, distinct, numeric_columns

ENOUGH = 0.9
"""Share of the label's variance, or of the rows outside its most frequent class, that a field must explain."""
BINS, ROWS_PER_BIN = 50, 20


def explaining_fields(inputs: Inputs, labels: NDArray[Any], fields: tuple[Field, ...], *, is_number: bool) -> list[str]:
    """Return the fields each of which alone explains almost the whole label [N]."""
    shares = explained(inputs, labels, fields, is_number=is_number)
    return [name for name, share in shares.items() if share > ENOUGH]


def explained(inputs: Inputs, labels: NDArray[Any], fields: Sequence[Field], *, is_number: bool) -> dict[str, float]:
    """Return which share of the label [N] each field alone explains; a field with too many values is left out.

    A number counts by its place among 50 groups of equal size, a category by itself. What is unknown about a number is
    its variance, about a class the rows that are not of the most frequent one.
    """
    numbers = zip(numeric_columns(fields), inputs.numeric.T, strict=True)
    texts = zip(categorical_columns(fields), inputs.categorical.T, strict=True)
    bins = min(BINS, len(labels) // ROWS_PER_BIN)
    if bins < 2:
        return {}
    groups = [(name, _binned(column, bins)) for name, column in numbers]
    groups += [(name, pl.Series(distinct(values)[1])) for name, values in texts]
    target = pl.Series("label", labels)
    whole = _unknown(target, pl.Series([0] * len(labels)), is_number=is_number)
    return {
        name: 1 - _unknown(target, group, is_number=is_number) / whole
        for name, group in groups
        if whole > 0 and group.n_unique() * ROWS_PER_BIN <= len(labels)
    }


def _binned(column: NDArray[np.float32], bins: int) -> pl.Series:
    is_there = np.isfinite(column)
    if not is_there.any():
        return pl.Series([0] * len(column))
    edges = np.unique(np.quantile(column[is_there], np.linspace(0, 1, bins + 1)[1:-1]))
    return pl.Series(np.where(is_there, np.searchsorted(edges, column, side="right"), -1))


def _unknown(labels: pl.Series, groups: pl.Series, *, is_number: bool) -> float:
    """Return how much of the labels remains unknown to whoever knows a row's group."""
    frame = pl.DataFrame({"label": labels, "group": groups})
    if is_number:
        by_group = frame.group_by("group").agg(unknown=((pl.col("label") - pl.col("label").mean()) ** 2).sum())
    else:
        counts = frame.group_by("group", "label").len()
        by_group = counts.group_by("group").agg(unknown=pl.col("len").sum() - pl.col("len").max())
    return float(by_group["unknown"].sum())
