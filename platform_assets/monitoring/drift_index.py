"""Measure how far the newest keys are from a model's training rows, relative to contiguous windows of training keys.

This is the index over histograms of features (`training.histograms`); faults are `monitoring.faults`, whether to
retrain is `monitoring.policy`.

A week always differs from a random draw of keys, so a threshold from permuted keys, or a textbook one, alarms nearly
always. The index is therefore ranked among the **contiguous** windows of the training keys. Each of those is measured
against the training keys outside of it, just as the newest window is measured against keys it is not part of.
numpy is imported only when something is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from platform_assets.training.reference import Counts, Reference

if TYPE_CHECKING:
    import numpy as np


SMOOTHING = 0.5
"""Rows added to every bin before shares are taken, so that an empty bin is unlikely rather than impossible: the
estimator of Krichevsky and Trofimov (1981), Jeffreys' prior of a multinomial."""

HIGHEST_QUANTILE = 0.9999
"""Cap below 1: the chi-squared quantile diverges there."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """The drift index of one window of keys.

    Attributes:
        mean_psi: mean PSI over the fields.
        fields: PSI per field.
        percentile: share of the reference's contiguous windows that are closer to the rest of the reference.
        windows: number of those windows.
        limit: above this index the window counts as drifting.
        keys: of the window.
    """

    mean_psi: float
    fields: Mapping[str, float]
    percentile: float
    windows: int
    limit: float
    keys: tuple[str, ...]

    @property
    def is_drift(self) -> bool:
        """Whether the window is further away than contiguous training keys ever were, by the margin."""
        return self.mean_psi > self.limit


def psi(observed: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the population stability index, one value per histogram.

    The sum over bins of (p - q) ln(p / q): the symmetrised divergence of Jeffreys (1946), under this name in
    N. Siddiqi, Credit Risk Scorecards (2006). Shares are smoothed by `SMOOTHING`.

    Args:
        observed, reference: counts [..., B] of the same bins.

    Raises:
        ValueError: a histogram has no rows.
    """
    import numpy as np

    observed, reference = np.asarray(observed, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not (observed.sum(axis=-1).all() and reference.sum(axis=-1).all()):
        raise ValueError("a histogram has no rows; expected at least one on either side.")
    p, q = _shares(observed), _shares(reference)
    return np.sum((p - q) * np.log(p / q), axis=-1)


def by_chance(observed: np.ndarray, reference: np.ndarray, quantile: float) -> float:
    """Return the PSI below which samples of this size from one distribution stay with probability `quantile`.

    For B bins it is about (1/n + 1/m) times a chi-squared with B - 1 degrees of freedom, whose quantile is Wilson and
    Hilferty's cube (1931).

    Args:
        observed, reference: counts [B] of the same bins.
        quantile: such as 0.99.
    """
    freedom = max(1, len(observed) - 1)
    score = NormalDist().inv_cdf(min(quantile, HIGHEST_QUANTILE))
    chi_squared = freedom * (1 - 2 / (9 * freedom) + score * math.sqrt(2 / (9 * freedom))) ** 3
    return float(chi_squared * (1 / observed.sum() + 1 / reference.sum()))


def window_psi(reference: Reference, width: int) -> np.ndarray:
    """Return float64 [K - width + 1]: the mean PSI of each window of `width` keys against the keys outside of it.

    Raises:
        ValueError: a window leaves no key outside of it.
    """
    import numpy as np

    if len(reference.keys) <= width:
        raise ValueError(f"the reference has {len(reference.keys)} keys; expected more than a window of {width}.")
    by_field = []
    for counts in reference.fields.values():
        cumulative = np.concatenate([np.zeros((1, counts.shape[1]), dtype=np.int64), np.cumsum(counts, axis=0)])
        inside = cumulative[width:] - cumulative[:-width]
        by_field.append(psi(inside, cumulative[-1] - inside))
    return np.mean(by_field, axis=0)


def index(
    window: Mapping[str, Counts], reference: Reference, *, limit: float, margin: float, is_floored: bool = False
) -> Index:
    """Measure the drift index of a window of keys.

    Window and reference share no key: keys in both are left out of the reference.

    Args:
        window: the histograms of each key, in order.
        reference: the model's.
        limit: quantile of the contiguous training windows that still counts as usual.
        margin: factor by which that quantile must be exceeded. With fewer than 1 / (1 - limit) windows the quantile
            lies near the largest of a few, and the margin is what bounds false alarms.
        is_floored: whether the limit is at least what samples as small as the window would reach by chance. For windows
            that may hold fewer rows than training keys, such as answers.

    Raises:
        ValueError: other fields or bins than the reference's, no rows, or too few training keys.
    """
    import numpy as np

    rest = reference.without(window)
    windows = window_psi(rest, len(window))
    fields, floors = {}, []
    for name, counts in rest.fields.items():
        observed = np.sum([np.asarray(by_field[name], dtype=np.int64) for by_field in window.values()], axis=0)
        if observed.shape != counts.shape[1:]:
            raise ValueError(f"field {name!r} has {observed.shape[0]} bins; the reference has {counts.shape[1]}.")
        fields[name] = float(psi(observed, counts.sum(axis=0)))
        # Few answers are far from the training windows by chance alone.
        floors.append(by_chance(observed, counts.sum(axis=0), limit) if is_floored else 0.0)
    mean_psi = float(np.mean(list(fields.values())))
    return Index(
        mean_psi=mean_psi,
        fields=fields,
        percentile=float(np.mean(windows < mean_psi)),
        windows=len(windows),
        limit=margin * max(float(np.quantile(windows, limit)), float(np.mean(floors))),
        keys=tuple(window),
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + SMOOTHING
    return smoothed / smoothed.sum(axis=-1, keepdims=True)
