"""Estimate a task's measures, and differences of them between two models, with intervals clustered by key.

Rows of one key are not independent, so the interval comes from leaving out whole keys. The jackknife and its source
are in `evaluation.paired`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from platform_assets.evaluation.paired import FEWEST_KEYS, Difference, jackknife, keys_of
from platform_assets.product.tasks.probabilities import SMALLEST_PROBABILITY, Floats

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.measure import Measure


def estimate(
    measure: Measure, label: np.ndarray, answer: np.ndarray, key: ArrayLike, *, confidence: float = 0.95
) -> Difference | None:
    """Return a measure with its interval; None if the rows, or the rows without some key, do not define it.

    The interval is clipped to the measure's range.

    Args:
        label: [N], as `Task.checked` returns them.
        answer: [N] or [N, P].
        key: each row's cluster.

    Raises:
        ValueError: fewer than two keys, or no rows.
    """
    if label.size == 0:
        raise ValueError("there are no labelled rows; a model is measured on at least one. Look at `outcomes`.")
    keys = np.unique(np.asarray(key))
    if keys.size < FEWEST_KEYS:  # here, because the message of `keys_of` is about holdouts
        raise ValueError(f"all rows are of key {keys[0]}; an interval needs at least {FEWEST_KEYS} keys.")
    codes, names = keys_of(key, label.size)
    value = measure.value(label, answer)
    without = None if value is None else _without_each(measure, label, answer, codes, len(names))
    if value is None or without is None:
        return None
    interval = jackknife(value, without, confidence)
    lowest = -math.inf if measure.lowest is None else measure.lowest
    highest = math.inf if measure.highest is None else measure.highest
    # Rounding may put the value itself slightly outside the range; the interval must still contain it.
    return replace(
        interval,
        low=min(max(interval.low, lowest), interval.value),
        high=max(min(interval.high, highest), interval.value),
    )


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
        ValueError: as `estimate`, or the measure is not defined without some key.
    """
    codes, names = keys_of(key, label.size)
    values = [measure.value(label, answer) for answer in (first, second)]
    without = [_without_each(measure, label, answer, codes, len(names)) for answer in (first, second)]
    if values[0] is None or values[1] is None or without[0] is None or without[1] is None:
        raise ValueError(
            f"{measure.title} is not defined on the {label.size} labelled rows of {len(names)} keys, or not without "
            "some key, so the difference has no interval. Raise Product.holdout."
        )
    return jackknife(values[0] - values[1], without[0] - without[1], confidence)


def entropies(probability: ArrayLike) -> Floats:
    """Return the log loss a model expects per row: `-p ln p - (1 - p) ln(1 - p)` in nats [N].

    The logarithms are clipped as in `probabilities.log_losses`, so this is what that expects.
    """
    chance = np.asarray(probability, dtype=np.float64)
    clipped = np.clip(chance, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return -(chance * np.log(clipped) + (1 - chance) * np.log(1 - clipped))


def _without_each(
    measure: Measure, label: np.ndarray, answer: np.ndarray, codes: np.ndarray, keys: int
) -> Floats | None:
    """Return a measure without each key [G]; None if it is undefined without some key."""
    if measure.without_each is not None:
        return measure.without_each(label, answer, codes, keys)
    values = [measure.value(label[codes != code], answer[codes != code]) for code in range(keys)]
    return None if any(value is None for value in values) else np.array(values, dtype=np.float64)
