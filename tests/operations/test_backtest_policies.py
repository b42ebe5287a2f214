"""Each policy sees only what was known at a decision."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.experiments import backtest_policies as policies
from platform_assets.operations.experiments.backtest_arithmetic import Past, walk
from platform_assets.product.monitoring import Retraining
from platform_assets.product.tasks import Binary

MEASURES = measures_of(Binary())
RULES = Retraining(decide_every=2, max_age=100, cooldown=2, performance_window=4, min_excess_loss=0.05, confidence=0.95)
KEYS, ROWS = 16, 40
SAYS = 0.2


def past(rates: list[float]) -> Past:
    """Return a past where every fit answers 0.2 for every row, with the given rate of positives per key."""
    labels = tuple(np.arange(ROWS) < round(rate * ROWS) for rate in rates)
    starts = tuple(range(0, KEYS, 2))
    return Past(
        measures=MEASURES,
        keys=tuple(f"{number:04d}" for number in range(1, KEYS + 1)),
        labels=labels,
        starts=starts,
        answers=tuple(tuple(np.full(ROWS, SAYS) for _ in range(KEYS - start)) for start in starts),
        cpu_s=(1.0,) * len(starts),
    )


def alternating(low: float, high: float) -> list[float]:
    return [low, high] * (KEYS // 2)


def index(is_drift: bool) -> Any:
    return SimpleNamespace(is_drift=is_drift, mean_psi=0.5, percentile=1.0)


def test_calendars_train_at_their_age() -> None:
    result = past(alternating(0.2, 0.2))
    assert walk(result, policies.never) == (0,)
    assert walk(result, policies.always) == tuple(range(8))
    assert walk(result, policies.calendar(result, 4)) == (0, 2, 4, 6)
    assert walk(result, policies.calendar(result, 5)) == (0, 3, 6)
    with pytest.raises(ValueError, match="calendar of 0 keys"):
        policies.calendar(result, 0)


def test_excess_is_the_closed_form_of_the_champions_own_labelled_keys() -> None:
    result = past([0.2] * 8 + [0.5, 0.55] * 4)
    performance = policies.performance_at(result, 0, 7, RULES, label_delay=1)
    assert performance is not None
    entropy = -(SAYS * math.log(SAYS) + (1 - SAYS) * math.log(1 - SAYS))
    rates = [0.55, 0.5, 0.55, 0.5]
    losses = [-(rate * math.log(SAYS) + (1 - rate) * math.log(1 - SAYS)) for rate in rates]
    assert performance.keys == 4, "four keys, the last of them labelled one key before the decision"
    assert performance.log_loss == pytest.approx(np.mean(losses))
    assert performance.expected == pytest.approx(entropy)
    assert performance.excess == pytest.approx(np.mean(losses) - entropy)
    assert performance.p_value is not None
    assert performance.p_value < 0.01
    assert "calibration_level" in performance.failing
    young = policies.performance_at(result, 6, 7, RULES, label_delay=1)
    assert young is None, "the champion has answered one labelled key: no test"


def test_the_performance_policy_trains_only_when_answers_are_contradicted() -> None:
    calibrated = past(alternating(0.15, 0.25))
    assert walk(calibrated, policies.performance(calibrated, RULES, label_delay=1)) == (0,)
    broken = past(alternating(0.15, 0.25)[:8] + alternating(0.5, 0.55)[:8])
    result = walk(broken, policies.performance(broken, RULES, label_delay=1))
    assert result[1] == 7, "after the change at the ninth key, once the whole window shows it"
    assert walk(broken, policies.performance(broken, replace(RULES, confidence=0.99999), label_delay=1)) == (0,)


def test_the_drift_policy_trains_when_the_index_drifts() -> None:
    result = past(alternating(0.2, 0.2))
    calls: list[tuple[int, int]] = []

    def index_of(champion: int, fit: int) -> Any:
        calls.append((champion, fit))
        return index(fit in (3, 4))

    assert walk(result, policies.drift(index_of)) == (0, 3, 4)
    assert calls[:4] == [(0, 1), (0, 2), (0, 3), (3, 4)]


def test_the_products_policy_follows_its_calendar_without_problems() -> None:
    result = past(alternating(0.15, 0.25))

    def unexpected_call(champion: int, fit: int) -> Any:
        raise AssertionError("drift is not a reason here, so its index is not computed")

    rules = replace(RULES, max_age=6)
    assert walk(result, policies.own(result, rules, unexpected_call, label_delay=1)) == (0, 3, 6)
    watchful = replace(rules, is_drift_enough=True, cooldown=4)
    assert walk(result, policies.own(result, watchful, lambda *_: index(is_drift=True), label_delay=1)) == (0, 2, 4, 6)
    poor = replace(rules, monthly_budget_usd=0.0)
    assert walk(result, policies.own(result, poor, unexpected_call, label_delay=1)) == (0, 3, 6), (
        "money is not replayed"
    )


def test_the_products_policy_also_reacts_to_performance() -> None:
    broken = past(alternating(0.15, 0.25)[:8] + alternating(0.5, 0.55)[:8])
    ours = walk(broken, policies.own(broken, RULES, lambda *_: index(is_drift=False), label_delay=1))
    assert ours == walk(broken, policies.performance(broken, RULES, label_delay=1))
    assert len(ours) > 1
