"""Compute any measure with an interval that respects that rows of one key share fate, of one model or of two.

Belongs here: estimates and differences of a task's measures, clustered by key, and the entropy of answers. Does not
belong here: the jackknife itself (`compute.paired`, where its source stands), a model against its own promises
(`compute.promises`), or which rows are looked at (`compute.performance`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from platform_assets.compute.metrics import SMALLEST_PROBABILITY, Floats
from platform_assets.compute.paired import FEWEST_KEYS, Difference, jackknife, keys_of

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Measure


def estimate(
    measure: Measure, label: np.ndarray, said: np.ndarray, key: ArrayLike, *, confidence: float = 0.95
) -> Difference | None:
    """Return a measure with its interval; None where the rows, or those without some key, cannot give it.

    The interval is clipped to the measure's range.

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
    if value is None or without is None:
        return None
    found = jackknife(value, without, confidence)
    lowest = -math.inf if measure.lowest is None else measure.lowest
    highest = math.inf if measure.highest is None else measure.highest
    # Rounding may put the value itself slightly out of range.
    return replace(found, low=min(max(found.low, lowest), found.value), high=max(min(found.high, highest), found.value))


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
