"""Measure a model of a rare class: average precision, next to the share of rows that are positive.

AUC counts every negative alike, so where positives are few it hides false alarms: a model that ranks every positive
above nine tenths of the negatives has an AUC of at least 0.9, and still more than half of what it calls may be false.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.product.tasks import Task

AVERAGE_PRECISION, BASE_RATE = "average_precision", "base_rate"
RARE_BELOW = 1 / 11
"""With fewer positives, a tenth of the negatives outnumber all positives: p < (1 - p) / 10."""


def quality(labels: NDArray[Any], answers: NDArray[Any], task: Task) -> dict[str, float]:
    """Return average precision and base rate of a binary task with few positives; empty otherwise.

    Args:
        labels: [N], 0 or 1.
        answers: [N], probabilities.
    """
    if task.kind != "binary" or not labels.any():
        return {}
    rate = float(labels.mean())
    return {AVERAGE_PRECISION: average_precision(labels, answers), BASE_RATE: rate} if rate < RARE_BELOW else {}


def average_precision(labels: NDArray[Any], answers: NDArray[Any]) -> float:
    """Return the mean, over positives, of the precision among the rows that are answered at least as high.

    Rows with equal answers count as one step, so their order does not matter. A model without skill has the base rate.
    """
    order = np.argsort(-answers, kind="stable")
    positives, ranked = labels[order].astype(bool), answers[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    hits, rows = np.cumsum(positives)[last], np.flatnonzero(last) + 1
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / rows).sum() / hits[-1])
