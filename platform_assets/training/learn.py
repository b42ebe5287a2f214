"""Learn from the training rows what the network needs to read raw columns: means, bins, vocabularies.

Everything here is JSON values. Weights are learned in `train`; what a caller may send is the contract, which depends on
the spec alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.data import images
from platform_assets.product.inputs import Inputs
from platform_assets.product.learned import CategoricalColumn, ImageColumn, Learned, NumericColumn
from platform_assets.training.matrix import categorical_columns, distinct, numeric_columns

if TYPE_CHECKING:
    from platform_assets.product.spec import Field

BINS = 16
MIN_COUNT = 20
"""A category in fewer rows is learned as unknown, so that "unknown" has training rows too."""


def learn(inputs: Inputs, fields: Sequence[Field], *, target: Mapping[str, float] | None = None) -> Learned:
    """Learn the preprocessing from the training rows alone.

    Args:
        target: from `Task.target_of` of the same rows.

    Raises:
        ValueError: no rows, fields that do not fit, or an infinite number.
    """
    numeric, categorical = inputs.numeric, inputs.categorical
    numeric_names, categorical_names = numeric_columns(fields), categorical_columns(fields)
    rows = len(numeric)
    if rows == 0 or len(categorical) != rows:
        raise ValueError(
            f"got {rows} numeric and {len(categorical)} categorical rows; expected equally many, at least one."
        )
    if numeric.shape[1] != len(numeric_names) or categorical.shape[1] != len(categorical_names):
        raise ValueError(
            f"got {numeric.shape[1]} numeric and {categorical.shape[1]} categorical columns for "
            f"{len(numeric_names)} and {len(categorical_names)} names."
        )
    categories = []
    for i, name in enumerate(categorical_names):
        texts, places = distinct(categorical[:, i])
        counts = np.bincount(places, minlength=len(texts))
        vocabulary = tuple(sorted(texts[place] for place in np.flatnonzero(counts >= MIN_COUNT)))
        categories.append(CategoricalColumn(name=name, vocabulary=vocabulary))
    return Learned(
        rows=rows,
        numeric=tuple(_numeric(name, numeric[:, i]) for i, name in enumerate(numeric_names)),
        categorical=tuple(categories),
        image=None if inputs.image is None else _image(inputs.image, fields),
        target=target,
    )


def codes(learned: Learned, categorical: np.ndarray) -> np.ndarray:
    """Return the codes int64 [N, C] of text [N, C]; 0 for values outside the vocabulary."""
    result = np.zeros(categorical.shape, dtype=np.int64)
    for i, column in enumerate(learned.categorical):
        code_by_value = {value: code for code, value in enumerate(column.vocabulary, start=1)}
        result[:, i] = np.fromiter((code_by_value.get(value, 0) for value in categorical[:, i]), np.int64, len(result))
    return result


def _numeric(name: str, column: np.ndarray) -> NumericColumn:
    is_null = np.isnan(column)
    values = np.sort(column[~is_null])
    if np.isinf(values).any():
        raise ValueError(
            f"field {name!r} holds an infinite number; expected finite ones or null. Fix the product's features()."
        )
    if len(values) == 0:
        return NumericColumn(
            name=name, mean=0.0, std=1.0, low=0.0, high=0.0, has_nulls=bool(is_null.any()), edges=(0.0,), levels=(0.5,)
        )
    positions = np.round(np.linspace(0, len(values) - 1, BINS + 1)).astype(int)
    edges = np.unique(values[positions])
    below, through = np.searchsorted(values, edges, side="left"), np.searchsorted(values, edges, side="right")
    exact = values.astype(np.float64)
    mean, std = float(exact.mean()), float(exact.std())
    return NumericColumn(
        name=name,
        mean=_float32(mean),
        std=_float32(std) if std > 1e-6 * max(1.0, abs(mean)) else 1.0,
        low=float(values[0]),
        high=float(values[-1]),
        has_nulls=bool(is_null.any()),
        edges=tuple(float(edge) for edge in edges),
        levels=tuple(_float32(level) for level in (below + through) / (2 * len(values))),
    )


def _image(pixels: np.ndarray, fields: Sequence[Field]) -> ImageColumn:
    name, shape = next((field.name, field.shape) for field in fields if field.shape is not None)
    # numpy counts in 64-bit copies of the grey levels. Sums of integers are exact in any order.
    starts, levels = range(0, len(pixels), images.ROWS_AT_ONCE), np.arange(256, dtype=np.int64)
    parts = [np.bincount(pixels[at : at + images.ROWS_AT_ONCE].reshape(-1), minlength=256) for at in starts]
    counts = np.sum(parts, axis=0)
    count, total, squares = pixels.size, int(counts @ levels), int(counts @ levels**2)
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    return ImageColumn(
        name=name,
        shape=shape,
        mean=_float32(mean),
        std=_float32(std) if std > 0 else 1.0,
        statistics=tuple(_numeric(name, values) for name, values in images.statistics(pixels).items()),
    )


def _float32(value: float) -> float:
    return float(np.float32(value))
