"""Find fields that give the label away, that hold nothing, or that reach far: what is wrong with training rows.

Shapes: N rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.product.learner import TrainingProblem
from platform_assets.training.matrix import categorical_columns, distinct, numeric_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.product.fields import Field
    from platform_assets.product.inputs import Inputs
    from platform_assets.product.tasks import Task

CHANCE = 1e-6
"""How often rows without any leak may be refused, at most, over all fields."""
LEAST_ROWS = 20
"""Rows of a regression below which a line through all of them says nothing."""
ROUNDING = 1e-5
"""Largest distance from a line, in standard deviations of the label: float32 keeps seven digits."""
MOST = 3


def check_labels(labels: np.ndarray, task: Task) -> None:
    """Raise `TrainingProblem` for labels that nothing can be learned from."""
    if len(labels) == 0:
        raise TrainingProblem(
            "there are no labelled rows in the training keys; expected some. Look at the outcomes table."
        )
    try:
        task.check_labels(labels)
    except ValueError as problem:
        raise TrainingProblem(str(problem)) from None


def giving_away(inputs: Inputs, labels: NDArray[Any], fields: Sequence[Field], task: Task) -> list[str]:
    """Return the fields each of which alone determines every label [N]: they were not known before it.

    Classes: a number from which on the label is another one, or categories with one label each. A regression: a number
    that is the label but for scale and offset. A field counts only where chance would rarely do the same.
    """
    numbers = zip(numeric_columns(fields), inputs.numeric.T, strict=True)
    if task.kind == "regression":
        return [name for name, column in numbers if _is_line(column, labels)]
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    needed = -math.log(CHANCE / max(1, len(fields)))
    # The logarithm of how many ways there are to deal these labels to the rows, less what chance may reach.
    evidence = math.lgamma(len(labels) + 1) - sum(math.lgamma(count + 1) for count in counts) - needed
    classes = len(counts)
    ordered = [name for name, column in numbers if _is_in_order(column, codes, classes)]
    names = ordered if math.lgamma(classes + 1) + math.log(classes) < evidence else []
    for name, values in zip(categorical_columns(fields), inputs.categorical.T, strict=True):
        texts, places = distinct(values)
        if len(texts) * math.log(classes) < evidence and len(np.unique(places * classes + codes)) == len(texts):
            names.append(name)
    return names


def empty(inputs: Inputs, fields: Sequence[Field]) -> list[str]:
    """Return the fields that are null in every row."""
    is_null = np.append(np.isnan(inputs.numeric).all(axis=0), np.asarray(inputs.categorical == "").all(axis=0))
    names = (*numeric_columns(fields), *categorical_columns(fields))
    return [name for name, is_empty in zip(names, is_null, strict=True) if is_empty]


def farthest(inputs: Inputs, fields: Sequence[Field]) -> str:
    """Describe the numbers that reach farthest from their mean, the farthest first; empty without numbers."""
    reached: Iterator[tuple[float, str, float]] = (
        (float(np.abs(values - values.mean()).max() / values.std()), name, float(values[np.abs(values).argmax()]))
        for name, column in zip(numeric_columns(fields), inputs.numeric.T, strict=True)
        if len(values := column[np.isfinite(column)].astype(np.float64)) and values.std() > 0
    )
    parts = [
        f"{name} reaches {value:.4g}, {distance:.0f} standard deviations from its mean"
        for distance, name, value in sorted(reached, reverse=True)[:MOST]
    ]
    return "; ".join(parts)


def _is_in_order(column: NDArray[np.float32], codes: NDArray[Any], classes: int) -> bool:
    """Whether the classes lie one above the other, and nulls have one class."""
    is_null = np.isnan(column)
    if len(np.unique(codes[is_null])) > 1:
        return False
    of_class = (column[(codes == number) & ~is_null] for number in range(classes))
    spans = sorted((values.min(), values.max()) for values in of_class if len(values))
    return all(before[1] < after[0] for before, after in pairwise(spans))


def _is_line(column: NDArray[np.float32], labels: NDArray[Any]) -> bool:
    is_there = np.isfinite(column)
    values, label = column[is_there].astype(np.float64), labels[is_there].astype(np.float64)
    if len(values) < LEAST_ROWS or values.std() == 0 or label.std() == 0 or not is_there.all():
        return False
    x, y = (values - values.mean()) / values.std(), (label - label.mean()) / label.std()
    slope = float((x * y).mean())
    return bool(np.abs(y - slope * x).max() < ROUNDING)
