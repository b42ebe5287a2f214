"""Fits that lose exactly `COST` nats per row and per key of age give every number of a backtest a closed form."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from platform_assets.operations.experiments import backtest_arithmetic
from tests.doubles.aging import COST, KEYS, STARTS, aging


def test_the_log_loss_of_every_plan_is_its_mean_age() -> None:
    past = aging()
    plans = [(0, *decisions) for count in range(6) for decisions in itertools.combinations(range(1, 6), count)]
    assert len(plans) == 32
    for plan in plans:
        turns = [STARTS[fit] for fit in plan]
        ages = [index - max(start for start in turns if start <= index) + 1 for index in range(KEYS)]
        assert past.log_loss(plan) == pytest.approx(COST * np.mean(ages)), plan
    assert past.log_loss((0,)) == pytest.approx(0.65)
    assert past.cost_s((0, 2, 4)) == 30 + 50


def test_keys_are_weighted_by_their_rows() -> None:
    past = aging()
    heavy = replace(
        past,
        labels=(np.tile(past.labels[0], 12), *past.labels[1:]),
        starts=(0,),
        answers=((np.tile(past.answers[0][0], 12), *past.answers[0][1:]),),
        cpu_s=(1.0,),
    )
    assert heavy.log_loss((0,)) == pytest.approx(COST * (12 * 1 + sum(range(2, 13))) / 23)


def test_turns_and_stitched_rows_follow_the_plan() -> None:
    past = aging()
    assert past.turns((0, 2, 5)) == [(0, 0, 4), (2, 4, 10), (5, 10, 12)]
    labels, answer, keys = past.stitched((0, 2, 5))
    assert labels.tolist() == [False, True] * KEYS
    assert keys.tolist() == [key for key in past.keys for _ in range(2)]
    assert answer[8:10].tolist() == past.answers[2][0].tolist(), "fit 2 answers the fifth key, one key old"
    with pytest.raises(ValueError, match="expected ascending fits from 0"):
        past.turns((1, 2))


@pytest.mark.parametrize(
    ("count", "plan"), [(0, (0,)), (1, (0, 3)), (2, (0, 2, 4)), (5, (0, 1, 2, 3, 4, 5)), (3, (0, 2, 3, 5))]
)
def test_an_even_calendar_divides_the_decisions(count: int, plan: backtest_arithmetic.Plan) -> None:
    assert backtest_arithmetic.even(aging(), count) == plan


def test_even_calendars_of_every_count_are_plans() -> None:
    past = aging()
    for fits in range(1, 60):
        many = replace(
            past,
            keys=past.keys[:1] * fits,
            labels=past.labels[:1] * fits,
            starts=tuple(range(fits)),
            answers=tuple(past.answers[0][:1] * (fits - fit) for fit in range(fits)),
            cpu_s=(1.0,) * fits,
        )
        for count in range(fits):
            plan = backtest_arithmetic.even(many, count)
            many.turns(plan)
            assert len(plan) == count + 1


def test_random_plans_are_seeded_and_reach_every_decision() -> None:
    past = aging()
    drawn = backtest_arithmetic.random_plans(past, 2)
    assert len(drawn) == 20
    assert drawn == backtest_arithmetic.random_plans(past, 2)
    assert drawn != backtest_arithmetic.random_plans(past, 2, seed=1)
    assert {len(plan) for plan in drawn} == {3}
    assert {fit for plan in backtest_arithmetic.random_plans(past, 1, draws=200) for fit in plan} == set(range(6))
    with pytest.raises(ValueError, match="6 retrainings among 5 decisions"):
        backtest_arithmetic.random_plans(past, 6)


def test_hindsight_finds_the_plan_with_the_lowest_loss() -> None:
    stream = np.random.default_rng(0)
    past = aging()
    answers = tuple(tuple(stream.uniform(0.05, 0.95, 2) for _ in answer) for answer in past.answers)
    noisy = replace(past, answers=answers)
    for count in range(6):
        plans = [(0, *decisions) for decisions in itertools.combinations(range(1, 6), count)]
        least = min(plans, key=noisy.log_loss)
        assert backtest_arithmetic.best(noisy, count) == least
    assert past.log_loss(backtest_arithmetic.best(past, 2)) == pytest.approx(COST * 2.5)


def test_an_inconsistent_history_is_refused() -> None:
    past = aging()
    with pytest.raises(ValueError, match="expected ascending indexes from 0"):
        replace(past, starts=(1, *STARTS[1:]))
    with pytest.raises(ValueError, match="expected one of each"):
        replace(past, cpu_s=(1.0,))
    with pytest.raises(ValueError, match="fit 0 does not score exactly"):
        replace(past, answers=(past.answers[1], *past.answers[1:]))
