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

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from platform_assets.compute import metrics
from platform_assets.compute.metrics import SMALLEST_PROBABILITY, Floats, Labels
from platform_assets.compute.paired import (
    FEWEST_KEYS,
    Difference,
    auc_without_each,
    clusters,
    jackknife,
    student_t_cdf,
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of one model, clustered by key.

    Attributes:
        value: on all rows.
        standard_error: by the leave-one-key-out jackknife.
        low, high: the interval at `confidence`, Student's t with `keys - 1` degrees of freedom; not cut off where a
            metric ends.
        keys: how many clusters it rests on.
    """

    value: float
    standard_error: float
    low: float
    high: float
    confidence: float
    keys: int


@dataclass(frozen=True, kw_only=True)
class Excess:
    """Log loss of one model minus what it expects of itself, in nats; above zero it is worse than it says.

    Attributes:
        value: the mean over all rows.
        standard_error, low, high, confidence, keys: as `Estimate`.
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


def auc(label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the AUC with its interval.

    Raises:
        ValueError: as `metrics.auc`, fewer than two keys, or a key without which only one class is left.
    """
    labels, codes, names = _grouped(label, key)
    _, probabilities = metrics.checked(labels, probability)
    without = auc_without_each(labels, probabilities, codes, names)
    return _estimate(jackknife(metrics.auc(labels, probabilities), without, confidence))


def log_loss(label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the log loss in nats with its interval; raise `ValueError` as `metrics.log_losses` or below two keys."""
    return mean(metrics.log_losses(label, probability), key, confidence=confidence)


def brier(label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the Brier score with its interval."""
    labels, probabilities = metrics.checked(label, probability)
    return mean((probabilities - labels) ** 2, key, confidence=confidence)


def accuracy(
    label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, threshold: float, confidence: float = 0.95
) -> Estimate:
    """Return the share of right decisions at a threshold with its interval."""
    labels, probabilities = metrics.checked(label, probability)
    return mean((probabilities >= threshold) == labels, key, confidence=confidence)


def precision(
    label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, threshold: float, confidence: float = 0.95
) -> Estimate:
    """Return the share of rows called positive that are; raise `ValueError` when a key holds all that are called."""
    labels, probabilities = metrics.checked(label, probability)
    called = probabilities >= threshold
    return ratio(called & labels, called, key, confidence=confidence)


def recall(
    label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, threshold: float, confidence: float = 0.95
) -> Estimate:
    """Return the share of positive rows that are called; raise `ValueError` when one key holds all of them."""
    labels, probabilities = metrics.checked(label, probability)
    return ratio((probabilities >= threshold) & labels, labels, key, confidence=confidence)


def calibration_error(
    label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, confidence: float = 0.95
) -> Estimate:
    """Return the expected calibration error with its interval; measured once without each key (1 ms for 12,000 rows).

    Its bias (`metrics.expected_calibration_error`) stays in it.
    """
    labels, codes, names = _grouped(label, key)
    _, probabilities = metrics.checked(labels, probability)
    measure: Callable[[Labels, Floats], float] = metrics.expected_calibration_error
    without = [measure(labels[codes != code], probabilities[codes != code]) for code in range(len(names))]
    return _estimate(jackknife(measure(labels, probabilities), np.array(without), confidence))


def mean(values: ArrayLike, key: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the mean of a number a row, with its interval.

    Raises:
        ValueError: fewer than two keys, no rows, or unequal lengths.
    """
    numbers = np.asarray(values, dtype=np.float64)
    return ratio(numbers, np.ones(numbers.shape), key, confidence=confidence)


def ratio(upper: ArrayLike, lower: ArrayLike, key: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the sum of `upper` over the sum of `lower`, with its interval.

    Raises:
        ValueError: as `mean`, or `lower` adds up to nothing when some key is left out.
    """
    tops, bottoms = np.asarray(upper, dtype=np.float64), np.asarray(lower, dtype=np.float64)
    _, codes, names = _grouped(np.zeros(bottoms.shape, dtype=bool), key)
    top_of = np.bincount(codes, weights=tops, minlength=len(names))
    bottom_of = np.bincount(codes, weights=bottoms, minlength=len(names))
    left = bottoms.sum() - bottom_of
    if not left.all():
        raise ValueError(
            f"without key {names[int(np.argmin(np.abs(left)))]} nothing is left to divide by, so there is no interval; "
            "ask for more keys."
        )
    return _estimate(jackknife(float(tops.sum() / bottoms.sum()), (tops.sum() - top_of) / left, confidence))


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
    found = mean(gap, key, confidence=confidence)
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


def all_metrics(
    label: ArrayLike, probability: ArrayLike, key: ArrayLike, *, threshold: float, confidence: float = 0.95
) -> dict[str, Estimate | None]:
    """Return every metric by name, None where too few keys hold a class, or a positive decision, for an interval.

    Raises:
        ValueError: for wrong labels, probabilities or lengths, and below two keys: then there is no interval at all.
    """
    rows, at = (label, probability, key), {"threshold": threshold, "confidence": confidence}
    checked = {"log_loss": log_loss(*rows, confidence=confidence)}
    return {
        "auc": _if_defined(auc, *rows, confidence=confidence),
        **checked,
        "brier": brier(*rows, confidence=confidence),
        "ece": calibration_error(*rows, confidence=confidence),
        "accuracy": accuracy(*rows, **at),
        "precision": _if_defined(precision, *rows, **at),
        "recall": _if_defined(recall, *rows, **at),
    }


def recomputed(
    measured: Callable[[np.ndarray, np.ndarray], Mapping[str, float | None]],
    label: np.ndarray,
    said: np.ndarray,
    key: ArrayLike,
    *,
    confidence: float = 0.95,
) -> dict[str, Estimate | None]:
    """Return measures that have no closed form without a key: they are computed anew without each.

    Args:
        measured: `(labels, answers) -> numbers by name`, None where the rows cannot give one.
        label: [N].
        said: answers [N] or [N, P].
        key: the row's cluster.
        confidence: of the intervals.

    Raises:
        ValueError: fewer than two keys, or as `measured`.
    """
    _, codes, names = _grouped(np.zeros(label.shape, dtype=bool), key)
    whole = measured(label, said)
    without = [measured(label[codes != code], said[codes != code]) for code in range(len(names))]
    found: dict[str, Estimate | None] = {}
    for name, value in whole.items():
        others = [each[name] for each in without]
        found[name] = (
            None
            if value is None or any(other is None for other in others)
            else _estimate(jackknife(value, np.array(others, dtype=np.float64), confidence))
        )
    return found


def _if_defined(measure: Callable[..., Estimate], *rows: ArrayLike, **options: float) -> Estimate | None:
    """Return a metric, or None; the others have checked the rows by the time, so only its own limits are left."""
    try:
        return measure(*rows, **options)
    except ValueError:
        return None


def _grouped(label: ArrayLike, key: ArrayLike) -> tuple[Labels, np.ndarray, list[str]]:
    """Return labels, codes and names of the keys; say here what is wrong with too few, before `paired` does."""
    keys = np.unique(np.asarray(key))
    if 0 < keys.size < FEWEST_KEYS:
        raise ValueError(f"all rows are of key {keys[0]}; an interval needs at least {FEWEST_KEYS} keys.")
    return clusters(label, key)


def _estimate(found: Difference) -> Estimate:
    return Estimate(
        value=found.value,
        standard_error=found.standard_error,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        keys=found.keys,
    )
