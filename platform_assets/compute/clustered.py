"""Measure one model with an interval that respects that rows of one key share fate, and test it against itself.

Belongs here: the estimate of a measure and its standard error clustered by key, and whether a model loses more than
it says it will. Does not belong here: two models on the same rows and the jackknife itself (`compute.paired`, where
its source stands), or which rows are looked at (`compute.performance`).

A model that gives probability p expects of its own log loss the entropy of p. If its probabilities are right, each
row's loss less that entropy has mean zero, whatever the mixture of easy and hard rows: a bad month for travellers is
no bad month for the model. So the mean excess tests the model against its own promise, with no reference period and
no other model. (The two-sided form for independent rows is Spiegelhalter's, Probabilistic prediction in patient
management and clinical trials, Statistics in Medicine 5, 1986; here for log loss, clustered and one-sided.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from platform_assets.compute.metrics import SMALLEST_PROBABILITY, Floats
from platform_assets.compute.paired import FEWEST_KEYS, Difference, jackknife, keys_of, mean_difference, student_t_cdf

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Measure


@dataclass(frozen=True, kw_only=True)
class Excess:
    """Log loss of one model minus what it expects of itself, in nats; above zero it is worse than it says.

    Attributes:
        value: the mean over all rows.
        standard_error, low, high, confidence, keys: as `Difference`.
        t: value over standard error; None when that error is 0, which says nothing.
        p: one-sided: how likely a t at least this large is for a model whose probabilities are right.
    """

    value: float
    standard_error: float
    low: float
    high: float
    confidence: float
    keys: int
    t: float | None
    p: float | None


def estimate(
    measure: Measure, label: np.ndarray, said: np.ndarray, key: ArrayLike, *, confidence: float = 0.95
) -> Difference | None:
    """Return a measure with its interval; None where the rows, or those without some key, cannot give it.

    Args:
        measure: of the task's.
        label: [N], as `Task.checked` returns them.
        said: answers [N] or [N, P].
        key: the row's cluster.

    Raises:
        ValueError: fewer than two keys, or no rows.
    """
    codes, names = _grouped(key, label.size)
    value = measure.of(label, said)
    without = None if value is None else _without_each(measure, label, said, codes, len(names))
    return None if value is None or without is None else jackknife(value, without, confidence)


def difference(
    measure: Measure,
    label: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    key: ArrayLike,
    *,
    confidence: float = 0.95,
) -> Difference:
    """Return a measure of `first` minus that of `second` on the same rows, clustered by key.

    Raises:
        ValueError: as `estimate`, or a key without which the measure is not defined.
    """
    codes, names = keys_of(key, label.size)
    values = [measure.of(label, said) for said in (first, second)]
    without = [_without_each(measure, label, said, codes, len(names)) for said in (first, second)]
    if values[0] is None or values[1] is None or without[0] is None or without[1] is None:
        raise ValueError(
            f"{measure.words} is not defined on the {label.size} labelled rows of {len(names)} keys, or not without "
            "some key, so the difference has no interval. Raise ProductSpec.holdout."
        )
    return jackknife(values[0] - values[1], without[0] - without[1], confidence)


def entropies(probability: ArrayLike) -> Floats:
    """Return what a model expects of each row's log loss: `-p ln p - (1 - p) ln(1 - p)` in nats [N].

    The logarithms are clipped as in `metrics.log_losses`, so the expectation is exact for what that measures.
    """
    given = np.asarray(probability, dtype=np.float64)
    clipped = np.clip(given, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return -(given * np.log(clipped) + (1 - given) * np.log(1 - clipped))


def excess(losses: ArrayLike, expected: ArrayLike, key: ArrayLike, *, confidence: float = 0.95) -> Excess:
    """Test whether a model's log loss exceeds what it expects of itself.

    Args:
        losses: negative log likelihoods in nats, one a row.
        expected: what the model expects of each, the entropy of its answer.
        key: the row's cluster.
        confidence: of the two-sided interval; the test is one-sided and has none.

    Raises:
        ValueError: no rows, unequal lengths, or fewer than two keys.
    """
    gap = np.asarray(losses, dtype=np.float64) - np.asarray(expected, dtype=np.float64)
    codes = _grouped(key, gap.size)[0]
    found = mean_difference(gap, np.zeros(gap.size), codes, confidence=confidence)
    statistic = None if found.standard_error == 0 else found.value / found.standard_error
    return Excess(
        value=found.value,
        standard_error=found.standard_error,
        low=found.low,
        high=found.high,
        confidence=confidence,
        keys=found.keys,
        t=statistic,
        p=None if statistic is None else student_t_cdf(-statistic, found.keys - 1),
    )


def _without_each(measure: Measure, label: np.ndarray, said: np.ndarray, codes: np.ndarray, keys: int) -> Floats | None:
    """Return a measure without each key [G]; None where it is undefined without some key."""
    if measure.without_each is not None:
        return measure.without_each(label, said, codes, keys)
    found = [measure.of(label[codes != code], said[codes != code]) for code in range(keys)]
    return None if any(each is None for each in found) else np.array(found, dtype=np.float64)


def _grouped(key: ArrayLike, rows: int) -> tuple[np.ndarray, list[str]]:
    """Return codes and names of the keys; say here what is wrong with too few, before `paired` does."""
    if rows == 0:
        raise ValueError("there are no labelled rows; a model is measured on at least one. Look at `outcomes`.")
    keys = np.unique(np.asarray(key))
    if keys.size < FEWEST_KEYS:
        raise ValueError(f"all rows are of key {keys[0]}; an interval needs at least {FEWEST_KEYS} keys.")
    return keys_of(key, rows)
