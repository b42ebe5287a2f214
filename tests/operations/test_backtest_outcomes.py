"""The value of a plan in closed form, compared with an even calendar, random dates and hindsight."""

from dataclasses import replace

import pytest

from platform_assets.operations.experiments import backtest_arithmetic as outcomes
from tests.doubles.aging import COST, aging

EVERY_DECISION = (0, 1, 2, 3, 4, 5)


def test_shares_of_gain_and_cost_are_closed_forms() -> None:
    result = outcomes.outcome(aging(), "some", (0, 2, 4))
    assert result.retrainings == 2
    assert result.log_loss == pytest.approx(COST * 2.5)
    assert result.gain_share == pytest.approx((6.5 - 2.5) / (6.5 - 1.5))
    assert (result.cpu_s, result.cost_share) == (80, pytest.approx(80 / 200))
    assert result.headline == 1.0, "up to an age of 6 a positive gets more than a half, a negative less"
    assert (result.minus_even, result.even_gain_share) == (0, result.gain_share), "it is the even calendar"
    assert result.best_gain_share == pytest.approx(0.8)
    assert result.random_low is not None
    assert result.random_high is not None
    assert result.random_low < result.random_gain_share < result.random_high <= 0.8 + 1e-12


def test_never_costs_nothing_and_always_gains_everything() -> None:
    past = aging()
    never, always = outcomes.outcome(past, "never", (0,)), outcomes.outcome(past, "always", EVERY_DECISION)
    assert (never.gain_share, never.cost_share, never.cpu_s) == (0.0, 0.0, 0.0)
    assert (always.gain_share, always.cost_share) == (1.0, 1.0)
    assert (always.random_low, always.random_high) == (1.0, 1.0), "there is only one set of all dates"


def test_a_bad_choice_of_dates_is_measured_against_the_even_ones() -> None:
    late = outcomes.outcome(aging(), "late", (0, 4, 5))
    mean_age = (sum(range(1, 9)) + 1 + 2 + 1 + 2) / 12
    assert late.minus_even == pytest.approx(COST * (mean_age - 2.5))
    assert late.minus_even_low < late.minus_even < late.minus_even_high


def test_without_a_gain_there_is_no_share() -> None:
    result = outcomes.outcome(aging(cost=-0.05, worst=13), "some", (0, 2, 4))
    assert (result.gain_share, result.random_low, result.best_gain_share) == (None, None, None)
    assert outcomes.sentences(result, [result])[0].startswith("The product's policy trains 2 times: no share")


def test_sentences_name_the_better_plan() -> None:
    past = aging()
    ours = outcomes.outcome(past, "own policy", (0, 4, 5))
    wins = replace(ours, minus_even=-0.01, minus_even_low=-0.02, minus_even_high=-0.001)
    loses = replace(ours, minus_even=0.01, minus_even_low=0.001, minus_even_high=0.02)
    tied = replace(ours, minus_even=0.01, minus_even_low=-0.001, minus_even_high=0.02)
    assert "beats an even calendar of 2" in outcomes.sentences(wins, [])[1]
    assert (
        "loses to an even calendar of 2 retrainings: log loss +0.0100 (+0.0010 to +0.0200"
        in outcomes.sentences(loses, [])[1]
    )
    assert "cannot be distinguished from an even calendar of 2" in outcomes.sentences(tied, [])[1]
    same = outcomes.outcome(past, "own policy", (0, 2, 4))
    assert "is an even calendar of 2 retrainings, date by date" in outcomes.sentences(same, [])[1]
    cheaper = outcomes.outcome(past, "every 4 keys", (0, 2, 4))
    text = outcomes.sentences(ours, [cheaper, outcomes.outcome(past, "never", (0,))])
    assert text[0].startswith("The product's policy trains 2 times")
    assert text[3] == "every 4 keys gains as much for less: 80% for 40%."
    assert not any(line.startswith(("never", "every 4 keys,")) for line in text), "their dates are even calendars"
    drift = replace(loses, policy="drift", gain_share=0.25, cost_share=0.5)
    assert outcomes.sentences(ours, [drift])[-1].startswith("drift, 25% for 50%: it loses to an even calendar of 2")
