"""Compare two models on the same rows, with intervals clustered by key, because rows of one key are not independent.

Paired differences of means, AUC without each key, the clustered standard error, its interval and its power.

The standard error is the leave-one-key-out jackknife: with G keys and d the difference on all rows,
`se^2 = (G - 1) / G * sum_g (d_without_g - d)^2`, read against Student's t with G - 1 degrees of freedom. That is
CV3 of MacKinnon, Nielsen and Webb (Fast and Reliable Jackknife and Bootstrap Methods for Cluster-Robust
Inference, Journal of Applied Econometrics 38, 2023), which errs on the wide side and holds with few clusters of
unequal size. Clustering AUC by independent units follows Obuchowski (Biometrics 53, 1997). Chosen over the bootstrap
because it needs no seed and no draw can lose a class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from platform_assets.evaluation.metrics import pair_wins
from platform_assets.product.tasks.probabilities import Floats, Labels

FEWEST_KEYS = 2


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First model minus second on the same rows, clustered by key.

    Attributes:
        value: the difference; more is better in AUC, accuracy or R², less in log loss.
        standard_error: by the leave-one-key-out jackknife; 0 if no key changes the difference.
        low, high: the interval at `confidence`.
        keys: number of clusters.
    """

    value: float
    standard_error: float
    low: float
    high: float
    confidence: float
    keys: int

    def p_worse(self, *, is_more_better: bool) -> float:
        """Return the probability that the first model looks at least this much worse although both are equally good."""
        loss = -self.value if is_more_better else self.value
        if self.standard_error == 0:
            return 0.0 if loss > 0 else 1.0
        return student_t_cdf(-loss / self.standard_error, self.keys - 1)

    def power(self, margin: float, limit: float) -> float | None:
        """Return the probability that a drop of more than `limit` shows if the first model is truly `margin` worse.

        Closed form: with the true difference at `-margin`, `(value + margin) / se` follows Student's t. None if the
        standard error is 0, because two models that agree reveal nothing about two that do not.
        """
        if margin < 0:
            raise ValueError(f"margin is {margin}; expected 0 or more.")
        if self.standard_error == 0:
            return None
        return student_t_cdf((margin - limit) / self.standard_error, self.keys - 1)

    def detectable(self, limit: float, power: float = 0.8) -> float | None:
        """Return the true drop that shows as more than `limit` with this power; None without a standard error."""
        if self.standard_error == 0:
            return None
        return limit + student_t_quantile(power, self.keys - 1) * self.standard_error


def mean_difference(first: ArrayLike, second: ArrayLike, key: ArrayLike) -> Difference:
    """Return the mean of `first` minus the mean of `second`, one number per row each: losses, or right and wrong.

    Raises:
        ValueError: unequal lengths, no rows, or fewer than two keys.
    """
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    codes, names = keys_of(key, gap.size)
    rows_of = np.bincount(codes, minlength=len(names))
    gap_of = np.bincount(codes, weights=gap, minlength=len(names))
    return jackknife(float(gap.mean()), (gap.sum() - gap_of) / (gap.size - rows_of), 0.95)


def keys_of(key: ArrayLike, rows: int) -> tuple[np.ndarray, list[str]]:
    """Return each row's key index [N], and the keys in order [G].

    Raises:
        ValueError: unequal lengths, or fewer than two keys.
    """
    keys = np.asarray(key)
    if keys.shape != (rows,):
        raise ValueError(f"keys have shape {keys.shape} and labels ({rows},); expected one of each per row.")
    names, codes = np.unique(keys, return_inverse=True)
    if names.size < FEWEST_KEYS:
        raise ValueError(
            f"all {rows} labelled rows are of key {names[0] if names.size else '(none)'}; rows of one key are not "
            f"independent, so an interval needs at least {FEWEST_KEYS} keys. Raise Product.holdout."
        )
    return codes, [str(name) for name in names]


def auc_without_each(label: Labels, probability: Floats, codes: np.ndarray, count: int) -> Floats | None:
    """Return the AUC without each key [G]: all pairs except those that involve a row of the key.

    Costs one sort: 12,000 rows of 14 keys take about 20 ms. None if one class is missing without some key.
    """
    positives = np.bincount(codes[label], minlength=count)
    negatives = np.bincount(codes[~label], minlength=count)
    pairs_left = (positives.sum() - positives) * (negatives.sum() - negatives)
    if not pairs_left.all():
        return None
    wins = pair_wins(label, probability)
    all_wins = int(wins[label].sum())
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(count + 1))
    left = np.empty(count, dtype=np.int64)
    for number in range(count):
        rows = order[starts[number] : starts[number + 1]]
        inside = label[rows]
        twice_counted = int(pair_wins(inside, probability[rows])[inside].sum())
        left[number] = all_wins - int(wins[rows].sum()) + twice_counted
    return left / (2 * pairs_left)


def jackknife(value: float, without: Floats, confidence: float) -> Difference:
    """Return a statistic with its standard error and interval.

    Args:
        value: on all rows.
        without: the same statistic without each key [G].
        confidence: of the interval.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1, such as 0.95.")
    count = without.size
    error = math.sqrt((count - 1) / count * float(np.sum((without - value) ** 2)))
    reach = student_t_quantile(0.5 + confidence / 2, count - 1) * error
    return Difference(
        value=value, standard_error=error, low=value - reach, high=value + reach, confidence=confidence, keys=count
    )


def student_t_cdf(value: float, freedom: int) -> float:
    """Return P(T <= value) for integer degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    if freedom < 1:
        raise ValueError(f"degrees of freedom are {freedom}; expected at least 1.")
    angle = math.atan2(value, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    term = math.cos(angle) if freedom % 2 else 1.0
    total = 0.0
    for power in range(2 + freedom % 2, freedom + 1, 2):
        total += term
        term *= square * (power - 1) / power
    inside = math.sin(angle) * total
    within = 2 / math.pi * (angle + inside) if freedom % 2 else inside
    return 0.5 + within / 2


@lru_cache(maxsize=64)
def student_t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t, by bisection to the last bits."""
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability}; expected a number between 0 and 1.")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while student_t_cdf(high, freedom) < probability:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2
