"""Test a model against what its own answers promise: one family of tests, with no reference period and no other model.

Belongs here: the test of one promise, and the correction for testing several. Does not belong here: by how much keys
miss one (`compute.promise_effects`), which promises a kind of task makes (`Task.promises`), or what follows
(`compute.performance_policy`).

If the probabilities are right, outcomes minus answers have mean zero, whatever the mixture of easy and hard rows. But
rows of a key share its shock (a storm), and neighbouring keys share weather, so an honest model is off for days. Each
promise is therefore one effect per key, and its error assumes that effects of neighbouring keys correlate: the mean
and its variance are those of generalised least squares with correlation `neighbours ** distance`, read against
Student's t with one degree of freedom less than keys. That is exact for such normal shocks and errs on the safe side
where keys share less. Slope and ranking are measured within keys, each with an intercept of its own, so that a shock
to the key's level leaves them alone; their keys share less.
Several promises are corrected together (Holm, Scandinavian Journal of Statistics 6, 1979).

Shapes: G keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from platform_assets.compute.metrics import Floats
from platform_assets.compute.paired import FEWEST_KEYS, student_t_cdf, student_t_quantile

BETWEEN_KEYS, WITHIN_KEYS = 0.7, 0.3
"""Correlation assumed between neighbouring keys of effects that share the key's shock, and of those freed from it.

Real fortnights' nominal 95 % intervals for independent keys held 80-89 %, as under a correlation of .25 to .45.
"""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One thing that a model's answers imply, and by how much each key misses it.

    Attributes:
        name: as in records: `calibration_level`.
        words: what `effects` are, as in a sentence.
        effects: of each key in order, 0 where the promise is kept; NaN for a key that cannot say [G].
        variances: of sampling alone, up to a common factor; keys are weighed by it, and one without says nothing [G].
        neighbours: the correlation assumed between neighbouring keys.
        side: 1 when only an effect above 0 is worse, -1 when only one below, 0 for both.
        margin: how large an effect matters; None where the product says so.
    """

    name: str
    words: str
    effects: Floats
    variances: Floats
    neighbours: float
    side: int
    margin: float | None


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What the keys say about one promise; the last four are None where too few keys can say.

    Attributes:
        name, words, side, margin: as `Promise`.
        keys: how many can say.
        effect: the mean over keys.
        low, high: its interval.
        p_value: how likely an effect at least as bad is for a model that keeps the promise.
        p_adjusted: the same for the family: at most `alpha` in a share `alpha` of windows of honest models.
    """

    name: str
    words: str
    side: int
    margin: float | None
    keys: int
    effect: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None


def family(promises: Sequence[Promise], *, confidence: float) -> dict[str, Tested]:
    """Test promises together; return the result of each by name.

    Args:
        promises: of one model on the same keys.
        confidence: of the intervals, each by itself.
    """
    found = [_tested(promise, confidence) for promise in promises]
    ranked = sorted((each for each in found if each.p_value is not None), key=lambda each: each.p_value or 0.0)
    adjusted, least = {}, 0.0
    for place, each in enumerate(ranked):
        assert each.p_value is not None
        # Promises that cannot be tested count too: which can is chance.
        least = max(least, min(1.0, (len(found) - place) * each.p_value))
        adjusted[each.name] = least
    return {each.name: replace(each, p_adjusted=adjusted.get(each.name)) for each in found}


def _tested(promise: Promise, confidence: float) -> Tested:
    can_say = np.isfinite(promise.effects) & np.isfinite(promise.variances) & (promise.variances > 0)
    effects, variances = promise.effects[can_say], promise.variances[can_say]
    found = Tested(
        name=promise.name,
        words=promise.words,
        side=promise.side,
        margin=promise.margin,
        keys=int(effects.size),
        effect=float(effects.mean()) if effects.size else None,
    )
    if effects.size < FEWEST_KEYS:
        return found
    value, error = mean_of_neighbours(effects, variances, promise.neighbours)
    freedom = effects.size - 1
    reach = student_t_quantile(0.5 + confidence / 2, freedom) * error
    p_value = None
    if error > 0:
        statistic = value / error
        worse = -abs(statistic) if promise.side == 0 else -promise.side * statistic
        p_value = student_t_cdf(worse, freedom) * (2 if promise.side == 0 else 1)
    return replace(found, effect=value, low=value - reach, high=value + reach, p_value=p_value)


def mean_of_neighbours(effects: Floats, variances: Floats, neighbours: float) -> tuple[float, float]:
    """Return the mean of correlated effects and its standard error, both by generalised least squares.

    Args:
        effects: in order of keys [G].
        variances: of sampling, above 0 [G]. The median is added, so that no key counts for much more than
            the others: what keys share is not sampling.
        neighbours: correlation of effects next to each other.
    """
    spread = variances + np.median(variances)
    spread = np.sqrt(spread / spread.max())
    places = np.arange(effects.size)
    correlation = neighbours ** np.abs(places[:, None] - places[None, :])
    inverse = np.linalg.inv(correlation) / (spread[:, None] * spread[None, :])
    weights = inverse.sum(axis=1)
    value = float(weights @ effects / weights.sum())
    left = effects - value
    scale = float(left @ inverse @ left) / (effects.size - 1)
    return value, math.sqrt(max(scale, 0.0) / float(weights.sum()))
