"""Metrics of one binary model on labelled rows: ranking, losses, calibration, decisions at a threshold.

Pure functions over numpy arrays. A number the rows do not define is an error, or null with a sentence; never 0.0 or
NaN. Two models at once are `evaluation.paired`, other kinds of task are `evaluation.measures`, what is good enough is
`evaluation.verdict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from platform_assets.product.tasks.probabilities import Floats, Labels, checked

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.measure import Bin, Decided

CALIBRATION_BINS = 15


def pair_wins(label: Labels, probability: Floats) -> NDArray[np.int64]:
    """Count per row, doubled, the rows of the other class that it is ranked correctly against [N].

    A tie counts one (half, doubled). Integers keep AUC exact: equal rankings give equal sums in any order of rows, up
    to 3e9 rows per class.
    """
    high, low = np.sort(probability[label]), np.sort(probability[~label])
    wins = np.empty(label.size, dtype=np.int64)
    scores = probability[label]
    wins[label] = np.searchsorted(low, scores, side="left") + np.searchsorted(low, scores, side="right")
    scores = probability[~label]
    wins[~label] = (
        2 * high.size - np.searchsorted(high, scores, side="left") - np.searchsorted(high, scores, side="right")
    )
    return wins


def auc(label: ArrayLike, probability: ArrayLike) -> float:
    """Return the probability that a positive row is ranked above a negative one, ties counting one half.

    Exact, by sorting: 12,000 rows take about 2 ms. (Mann-Whitney U over the number of pairs: Hanley and McNeil,
    Radiology 143, 1982.)

    Raises:
        ValueError: as `checked`, or rows of one class only.
    """
    labels, probabilities = checked(label, probability)
    positives = int(labels.sum())
    if positives in (0, labels.size):
        raise ValueError(
            f"all {labels.size} labels are {int(labels[0])}; AUC needs both classes. Use more keys, "
            "or read log loss, which one class defines."
        )
    wins = pair_wins(labels, probabilities)
    return int(wins[labels].sum()) / (2 * positives * (labels.size - positives))


def calibration_table(label: ArrayLike, probability: ArrayLike, *, bins: int = CALIBRATION_BINS) -> list[Bin]:
    """Compare predicted with observed rates in bins of equal mass, in rising order.

    A row's bin follows from the middle of its rank among all rows, so equal probabilities share a bin and the order of
    rows does not matter. Many ties leave some bins empty; those are left out.
    """
    return [
        {
            "rows": rows.size,
            "low": float(rows.min()),
            "high": float(rows.max()),
            "expected": float(rows.mean()),
            "observed": float(positive.mean()),
        }
        for rows, positive in _equal_masses(*checked(label, probability), bins)
    ]


def expected_calibration_error(label: ArrayLike, probability: ArrayLike, *, bins: int = CALIBRATION_BINS) -> float:
    """Return the mean distance between predicted and observed rate over `calibration_table`, weighted by rows.

    Fifteen bins of **equal mass**, not of equal width: a wide bin at the rare end would hold a handful of rows
    (Nixon et al., Measuring Calibration in Deep Learning, 2019). Biased upwards: a perfect model shows about
    `sqrt(2 * bins * p * (1 - p) / (pi * rows))`, .012 for 12,000 rows at a rate of 24 %.
    """
    labels, probabilities = checked(label, probability)
    # As `mean` of both adds and divides; a verdict calls this once per key, and `mean` itself would take half of it.
    gap = sum(
        rows.size * abs(float(rows.sum()) / rows.size - np.count_nonzero(positive) / rows.size)
        for rows, positive in _equal_masses(labels, probabilities, bins)
    )
    return float(gap / labels.size)


def _equal_masses(labels: Labels, probabilities: Floats, bins: int) -> list[tuple[Floats, Labels]]:
    """Split rows into the bins of `calibration_table`, each in the order of the rows."""
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1.")
    # One sort instead of two binary searches per row: to judge 51,000 rows of 60 keys takes 2.1 instead of 8.8 CPU s.
    ranked = np.sort(probabilities)
    first = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
    doubled_rank = first + np.append(first[1:], ranked.size)
    bin_of = np.minimum(doubled_rank * bins // (2 * ranked.size), bins - 1)
    lowest = ranked[first[1:][bin_of[1:] != bin_of[:-1]]]
    number = np.searchsorted(lowest, probabilities, "right").astype(np.min_scalar_type(lowest.size))
    order = np.argsort(number, kind="stable")  # few small integers: a radix sort
    ends = np.cumsum(np.bincount(number)).tolist()
    parts = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [(probabilities[part], labels[part]) for part in parts]


def at_threshold(label: ArrayLike, probability: ArrayLike, threshold: float) -> Decided:
    """Count decisions when probabilities of at least `threshold` are called positive."""
    labels, probabilities = checked(label, probability)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; expected a number between 0 and 1.")
    called = probabilities >= threshold
    return {
        "threshold": float(threshold),
        "true_positives": int((called & labels).sum()),
        "false_positives": int((called & ~labels).sum()),
        "false_negatives": int((~called & labels).sum()),
        "true_negatives": int((~called & ~labels).sum()),
        "notes": [],
    }
