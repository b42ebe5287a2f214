"""Test a model against what its own answers promise, as one family of tests. Needs no reference period or other model.

How far each key misses a promise is `evaluation.promise_effects`, which promises a kind of task makes is
`Task.promises`, and what follows is `monitoring.performance_policy`.

If the probabilities are right, outcomes minus answers have mean zero, whatever the mixture of easy and hard rows. But
rows of a key share its shock (a storm), and neighbouring keys share weather, so even an honest model is off for days at
a time. Each promise is therefore one effect per key, and the error assumes that the effects of neighbouring keys
correlate: mean and variance are those of generalised least squares with correlation `neighbours ** distance`, read
against Student's t with one degree of freedom less than keys. That is exact for such normal shocks and errs on the safe
side where keys share less. Slope and ranking are measured within keys, each key with its own intercept, so that a shock
to the key's level leaves them alone; the assumed correlation is lower there.
Several promises are corrected together (Holm, Scandinavian Journal of Statistics 6, 1979).

Shapes: G keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from platform_assets.evaluation.paired import FEWEST_KEYS, student_t_cdf, student_t_quantile
from platform_assets.product.tasks.probabilities import Floats
from platform_assets.store.records.performance import Tested

# Chosen on simulated windows with other seeds than row Q5, which measures false alarms and power. A key's own
# shock does not touch what is measured within keys.
BETWEEN_KEYS, WITHIN_KEYS = 0.7, 0.3
"""Assumed correlation between neighbouring keys, of effects that share the key's shock and of effects within keys.

On real fortnights, nominal 95 % intervals for independent keys covered 80-89 %, as a correlation of .25 to .45 would
give.
"""


@dataclass(frozen=True)
class Promise:
    """One thing a model's answers imply, and how far each key misses it.

    Attributes:
        name: as in records: `calibration_level`.
        description: of `effects`, as part of a sentence.
        effects: per key in order, 0 where the promise is kept; NaN for a key that cannot tell [G].
        variances: sampling variance up to a common factor, the weight of a key; a key without one cannot tell [G].
        neighbours: the correlation assumed between neighbouring keys.
        side: 1 if only effects above 0 are bad, -1 if only those below, 0 for both.
        margin: the smallest effect that matters; None if the product sets it.
    """

    name: str
    description: str
    effects: Floats
    variances: Floats
    neighbours: float
    margin: float | None
    side: int = 0


def family(promises: Sequence[Promise], *, confidence: float) -> dict[str, Tested]:
    """Test promises together; return the results by name.

    Args:
        promises: of one model on the same keys.
        confidence: of the intervals, individually.
    """
    tested = [_tested(promise, confidence) for promise in promises]
    ranked = sorted((test for test in tested if test.p_value is not None), key=lambda test: test.p_value or 0.0)
    adjusted, least = {}, 0.0
    for rank, test in enumerate(ranked):
        assert test.p_value is not None
        # Untestable promises count too: which ones can be tested is a matter of chance.
        least = max(least, min(1.0, (len(tested) - rank) * test.p_value))
        adjusted[test.name] = least
    return {test.name: replace(test, p_adjusted=adjusted.get(test.name)) for test in tested}


def _tested(promise: Promise, confidence: float) -> Tested:
    is_usable = np.isfinite(promise.effects) & np.isfinite(promise.variances) & (promise.variances > 0)
    effects, variances = promise.effects[is_usable], promise.variances[is_usable]
    untested = Tested(
        name=promise.name,
        words=promise.description,
        side=promise.side,
        margin=promise.margin,
        keys=int(effects.size),
        effect=float(effects.mean()) if effects.size else None,
        low=None,
        high=None,
        p_value=None,
        p_adjusted=None,
    )
    if effects.size < FEWEST_KEYS:
        return untested
    value, error = mean_of_neighbours(effects, variances, promise.neighbours)
    freedom = effects.size - 1
    reach = student_t_quantile(0.5 + confidence / 2, freedom) * error
    p_value = None
    if error > 0:
        statistic = value / error
        worse = -abs(statistic) if promise.side == 0 else -promise.side * statistic
        p_value = student_t_cdf(worse, freedom) * (2 if promise.side == 0 else 1)
    return replace(untested, effect=value, low=value - reach, high=value + reach, p_value=p_value)


def mean_of_neighbours(effects: Floats, variances: Floats, neighbours: float) -> tuple[float, float]:
    """Return the mean of correlated effects and its standard error, by generalised least squares.

    Args:
        effects: in order of keys [G].
        variances: of sampling, above 0 [G]. Their median is added, so that no key counts much more than the others: the
            variation that keys share is not sampling.
        neighbours: correlation of adjacent effects.
    """
    spread = variances + np.median(variances)
    spread = np.sqrt(spread / spread.max())
    positions = np.arange(effects.size)
    correlation = neighbours ** np.abs(positions[:, None] - positions[None, :])
    inverse = np.linalg.inv(correlation) / (spread[:, None] * spread[None, :])
    weights = inverse.sum(axis=1)
    value = float(weights @ effects / weights.sum())
    residuals = effects - value
    scale = float(residuals @ inverse @ residuals) / (effects.size - 1)
    return value, math.sqrt(max(scale, 0.0) / float(weights.sum()))
