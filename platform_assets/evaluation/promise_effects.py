"""Measure per key how far outcomes miss what the answers promise: level, slope, ranking, spread.

Each promise gets one effect per key with its sampling variance, and a margin for what matters; the tests are
`evaluation.promises`. Shapes: N rows, G keys.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from platform_assets.evaluation.promises import BETWEEN_KEYS, WITHIN_KEYS, Promise
from platform_assets.product.tasks.probabilities import Floats

LEVEL_MARGIN, SLOPE_MARGIN, RANKING_MARGIN = 0.25, 0.25, 0.02
"""Smallest effects that matter: .25 log odds (24 % instead of 20 %; .5 % of log loss there), .25 of slope, .02 of AUC.

For answers with a spread: a level off by a quarter of the spread, and a scatter of labels a quarter larger or smaller.
"""
FARTHEST = 1e-7
"""Probabilities are clipped to this distance from 0 and 1 before log odds are taken."""
NEWTON_STEPS = 50

# The key's own shock moves its level, and nothing that is measured within keys.
_level = partial(Promise, "calibration_level", neighbours=BETWEEN_KEYS, margin=LEVEL_MARGIN)
_slope = partial(Promise, "calibration_slope", neighbours=WITHIN_KEYS, margin=SLOPE_MARGIN)
_scatter = partial(Promise, "calibration_spread", neighbours=WITHIN_KEYS, margin=SLOPE_MARGIN)
_ranking = partial(Promise, "ranking", neighbours=WITHIN_KEYS, side=-1, margin=RANKING_MARGIN)


def of_probabilities(happened: np.ndarray, chance: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
    """Return the promises of probabilities of one event: level, slope and ranking.

    Args:
        happened: whether the event came true [N].
        chance: as answered [N].
        codes: each row's key index, in key order [N].
        keys: number of keys.
    """
    chances = np.clip(chance, FARTHEST, 1 - FARTHEST)
    odds, labels = np.log(chances / (1 - chances)), np.asarray(happened, dtype=np.float64)
    shocks = key_levels(labels, odds, codes, keys)
    adjusted = 1 / (1 + np.exp(-(odds + shocks[codes])))
    weight = adjusted * (1 - adjusted)
    centred = odds - _by_key(weight * odds, weight, codes, keys)[codes]
    information = _varied(np.bincount(codes, weights=weight * centred**2, minlength=keys), weight * odds**2, codes)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.bincount(codes, weights=(labels - adjusted) * centred, minlength=keys) / information
        slope_variances = 1 / information
        level_variances = 1 / np.bincount(codes, weights=chances * (1 - chances), minlength=keys)
    ranked, ranked_variances = _concordance(labels, odds, adjusted, codes, keys)
    return [
        _level("log odds of outcomes minus those of answers", shocks, level_variances),
        _slope("slope of outcomes on answers within keys, minus 1", slopes, slope_variances),
        _ranking("AUC within keys minus what the answers imply", ranked, ranked_variances),
    ]


def of_normals(labels: Floats, answers: Floats, codes: np.ndarray, keys: int) -> list[Promise]:
    """Return the promises of normally distributed answers (value and spread): level, slope and spread.

    Args:
        labels: [N].
        answers: value and spread [N, 2].
        codes: each row's key index, in key order [N].
        keys: number of keys.
    """
    value, spread = answers[:, 0], answers[:, 1]
    scores, weight = (labels - value) / spread, 1 / spread**2
    rows = np.bincount(codes, minlength=keys).astype(np.float64)
    levels = np.bincount(codes, weights=scores, minlength=keys) / rows
    error = labels - value
    error = error - _by_key(weight * error, weight, codes, keys)[codes]
    centred = value - _by_key(weight * value, weight, codes, keys)[codes]
    information = _varied(np.bincount(codes, weights=weight * centred**2, minlength=keys), weight * value**2, codes)
    freedom = np.where(rows > 1, rows - 1, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.bincount(codes, weights=weight * error * centred, minlength=keys) / information
        scatter = np.sqrt(np.bincount(codes, weights=weight * error**2, minlength=keys) / freedom) - 1
        slope_variances = 1 / information
    # The mean of a square root lies 1 / (4 * freedom) below the square root of the mean.
    scatter = scatter + 1 / (4 * freedom)
    return [
        _level("labels minus values, in spreads", levels, 1 / rows),
        _slope("slope of labels on values within keys, minus 1", slopes, slope_variances),
        _scatter("scatter of labels within keys over the spread, minus 1", scatter, 1 / freedom),
    ]


def key_levels(labels: Floats, odds: Floats, codes: np.ndarray, keys: int) -> Floats:
    """Estimate by how many log odds each key's outcomes lie above its answers [G].

    Firth's bias-reduced estimate (Biometrika 80, 1993) for an intercept with fixed log odds as an offset. It is finite
    for a key of one class, and symmetric if the shocks of log odds are.
    """
    levels = np.zeros(keys)
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(odds + levels[codes])))
        weight = chance * (1 - chance)
        total = np.bincount(codes, weights=weight, minlength=keys)
        bias = np.bincount(codes, weights=weight * (0.5 - chance), minlength=keys) / np.maximum(total, 1e-12)
        score = np.bincount(codes, weights=labels - chance, minlength=keys) + bias
        step = np.clip(score / (total + 0.25), -2, 2)
        levels += step
        if np.abs(step).max() < 1e-9:
            break
    return levels


def _varied(information: np.ndarray, size: Floats, codes: np.ndarray) -> Floats:
    """Return each key's information about a slope [G]; NaN where the answers vary by rounding alone."""
    return np.where(
        information > 1e-12 * np.bincount(codes, weights=size, minlength=information.size), information, np.nan
    )


def _by_key(upper: Floats, lower: Floats, codes: np.ndarray, keys: int) -> Floats:
    tops, bottoms = (np.bincount(codes, weights=weights, minlength=keys) for weights in (upper, lower))
    return np.asarray(tops / np.maximum(bottoms, 1e-300))


def _concordance(labels: Floats, odds: Floats, chance: Floats, codes: np.ndarray, keys: int) -> tuple[Floats, Floats]:
    """Return each key's AUC minus the AUC its answers imply, and its variance; NaN for a key of one class.

    The implied AUC is the expected share of correctly ranked pairs when each row comes true with `chance`, ties
    counting half.
    """
    order = np.lexsort((odds, codes))
    labels, chance, codes, odds = labels[order], chance[order], codes[order], odds[order]
    is_new = np.ones(codes.size, dtype=bool)
    is_new[1:] = (codes[1:] != codes[:-1]) | (odds[1:] != odds[:-1])
    tie = np.cumsum(is_new) - 1
    first_of = np.searchsorted(codes, np.arange(keys))

    def total(values: Floats) -> Floats:
        return np.asarray(np.bincount(codes, weights=values, minlength=keys), dtype=np.float64)

    def below(values: Floats) -> Floats:
        """Sum the values of the key's rows that rank lower, plus half of those that tie; the row itself excluded."""
        running = np.concatenate([[0.0], np.cumsum(values)])
        tied = np.bincount(tie, weights=values)
        starts = np.flatnonzero(is_new)
        return (running[starts] + 0.5 * tied)[tie] - running[first_of][codes] - 0.5 * values

    other = 1 - chance
    lower, lower_chance = below(other), below(chance)
    positives, negatives = total(labels), total(1 - labels)
    expected, unexpected = total(chance), total(other)
    with np.errstate(divide="ignore", invalid="ignore"):
        implied = total(chance * lower) / (expected * unexpected - total(chance * other))
        observed = total(labels * below(1 - labels)) / (positives * negatives)
        share = implied[codes]
        # By how much a row that came true raises the number of correctly ranked pairs above the implied share.
        moves = lower - share * (unexpected[codes] - other)
        moves -= (expected[codes] - chance - lower_chance) - share * (expected[codes] - chance)
        weight = chance * other
        moves -= _by_key(weight * moves, weight, codes, keys)[codes]
        variances = total(weight * moves**2) / (expected * unexpected) ** 2
    has_both = (positives > 0) & (negatives > 0)
    return np.where(has_both & (variances > 1e-12), observed - implied, np.nan), variances
