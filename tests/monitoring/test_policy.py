"""Decisions in closed form: one fact changes, one answer changes, and every number is in the record."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace as changed

from platform_assets.engine.balance import Balance
from platform_assets.launch import budgets
from platform_assets.monitoring.performance_policy import judge
from platform_assets.monitoring.policy import ALERT_FAULT, RETRAIN, WAIT, Facts, Health, decide, is_decision_key
from platform_assets.product.monitoring import Retraining
from platform_assets.store.records.decisions import DecidedFault, Performance
from platform_assets.store.records.performance import Promised
from tests.doubles import documents

NOW = datetime(2020, 3, 1, tzinfo=UTC)
POLICY = Retraining(decide_every=7, max_age=28, cooldown=7, min_excess_loss=0.01, confidence=0.99)
FACTS = Facts(
    key="K",
    index=70,
    cutoff="L",
    superseded_at=NOW + timedelta(days=1),
    has_newer=False,
    anchor=0,
    last_judged=69,
    live_cutoff=43,
    last_trained=43,
    pending_cutoff=None,
    usable_keys=60,
    min_keys=45,
    health=Health(verdict="fine"),
)
"""A decision key (70 is 10 sevens) on which the last training is 28 keys old: the calendar requires a training."""

YOUNG = replace(FACTS, live_cutoff=57, last_trained=57)
LOSS = documents.tested(
    name="log_loss",
    words="log loss minus the model's own expected loss",
    side=1,
    margin=None,
    keys=14,
    effect=0.03,
    low=0.01,
    high=0.05,
    p_value=0.001,
    p_adjusted=0.004,
)
RANKING = changed(LOSS, name="ranking", words="AUC minus implied", side=-1, margin=0.02, effect=-0.08)
PERFORMANCE = Promised(keys=14, log_loss=0.52, expected_log_loss=0.49, excess=0.03, p_value=0.001, tests={})


def _performance(**changes) -> Performance:
    """Return `monitoring.measured` numbers of a model with too high a log loss, one number of the test changed."""
    return judge(changed(PERFORMANCE, tests={"log_loss": changed(LOSS, **changes)}), POLICY)


def test_a_model_at_its_age_limit_is_trained_again() -> None:
    decision = decide(FACTS, POLICY, NOW)
    assert decision.action == RETRAIN
    assert decision.reasons == ("the last training is 28 keys old; the limit is 28.",)
    assert decision.numbers.training_age_keys == 28


def test_a_young_model_that_performs_well_waits_with_reasons() -> None:
    decision = decide(
        replace(YOUNG, performance=structs.replace(_performance(p_adjusted=0.9), excess=-0.002, p_value=0.7)),
        POLICY,
        NOW,
    )
    assert decision.action == WAIT
    assert decision.reasons == (
        (
            "the last training is 14 keys old (the limit is 28), "
            "log loss minus the model's own expectation is -0.0020, "
            "none of 1 tests of the model's answers fails (smallest adjusted p = 0.9000): "
            "no reason to train."
        ),
    )
    assert decision.numbers.performance.p_value == 0.7


def test_any_failing_test_of_the_family_is_a_reason_with_its_numbers() -> None:
    better = changed(LOSS, effect=-0.036, p_adjusted=1.0)
    performance = judge(changed(PERFORMANCE, excess=-0.036, tests={"ranking": RANKING, "log_loss": better}), POLICY)
    decision = decide(replace(YOUNG, performance=performance), POLICY, NOW)
    assert decision.action == RETRAIN
    assert decision.reasons == (
        (
            "over 14 keys outcomes contradict the model's answers "
            "(ranking: AUC minus implied is -0.0800, adjusted p = 0.0040)."
        ),
    )
    assert decision.numbers.performance.failing == ("ranking",)
    assert decision.numbers.performance.tests["log_loss"].effect == -0.036


def test_drift_alone_is_a_reason_only_if_the_product_allows_it() -> None:
    drifting = replace(YOUNG, health=Health(verdict="drift", index=0.3, percentile=1.0))
    assert decide(drifting, POLICY, NOW).action == WAIT
    decision = decide(drifting, replace(POLICY, is_drift_enough=True), NOW)
    assert decision.action == RETRAIN
    assert "features at percentile 1.000" in decision.reasons[0]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"has_newer": True}, "not the newest key"),
        ({"superseded_at": NOW}, "not the newest key"),
        ({"cutoff": None}, "no cutoff after it"),
        ({"pending_cutoff": "H"}, "cutoff H was decided and is not judged yet"),
        ({"usable_keys": 44}, "44 labelled keys are usable, 0 are held; 45 needed"),
        ({"unlabelled": ("B", "C")}, "labels of 2 keys have not landed, the first is B"),
        ({"fresh_keys": 0}, "no usable labels have landed since the last training"),
        ({"index": 71, "last_judged": 70}, "not a decision key"),
    ],
)
def test_each_obstacle_blocks_a_training_with_its_reason(change: dict, part: str) -> None:
    decision = decide(replace(FACTS, **change), POLICY, NOW)
    assert decision.action == WAIT
    assert part in decision.reasons[0]


def test_a_training_that_waits_for_labels_is_decided_at_the_next_key() -> None:
    decision = decide(replace(FACTS, unlabelled=("B",)), POLICY, NOW)
    assert (decision.is_free, decision.numbers.awaits_labels) == (False, True)
    assert decision.reasons[1] == "the last training is 28 keys old; the limit is 28."
    calm = decide(replace(YOUNG, unlabelled=("B",)), POLICY, NOW)
    assert (calm.is_free, calm.numbers.awaits_labels) == (True, False), "nothing requires a training"
    assert calm.numbers.unlabelled == ("B",)
    nothing_new = decide(replace(FACTS, unlabelled=("B",), fresh_keys=0), POLICY, NOW)
    assert (nothing_new.is_free, nothing_new.numbers.awaits_labels) == (False, False)
    assert decide(replace(FACTS, given_up=("B",), given_up_now=("B",)), POLICY, NOW).action == RETRAIN


@pytest.mark.parametrize(
    ("change", "beyond"),
    [
        ({"last_trained": 36}, None),
        ({"last_trained": 35}, 1),
        ({"last_trained": 35, "has_newer": True}, None),
        ({"last_trained": 35, "superseded_at": NOW}, None),
        ({"last_trained": 35, "cutoff": None}, None),
        ({"last_trained": 35, "health": Health(verdict=ALERT_FAULT)}, 1),
        ({"last_trained": 35, "pending_cutoff": "H"}, 1),
        ({"last_trained": 35, "usable_keys": 1}, 1),
        ({"last_trained": None, "live_cutoff": None}, None),
        ({"last_trained": None, "live_cutoff": None, "min_keys": 35}, 1),
        ({"last_trained": None, "live_cutoff": None, "min_keys": 35, "label_delay": 1}, None),
    ],
)
def test_overdue_keys_are_counted_from_the_newest_training(change: dict, beyond: int | None) -> None:
    """71 keys are closed, a training may be 28 keys old, and a decision is made every 7 keys."""
    assert decide(replace(FACTS, **change), POLICY, NOW).numbers.overdue_keys == beyond


def test_cooldown_outlasts_even_a_bad_performance() -> None:
    fresh = replace(FACTS, live_cutoff=65, last_trained=65, performance=_performance())
    assert decide(fresh, POLICY, NOW).reasons == ("the last training is 6 keys old; cooldown is 7.",)
    older = replace(FACTS, live_cutoff=20, last_trained=65)
    assert decide(older, POLICY, NOW).action == WAIT, "a challenger that lost starts the cooldown too"


def test_a_fault_comes_before_everything() -> None:
    fault = DecidedFault(source="feed", check="volume", came="3 rows", expected="about 900", episode="K")
    decision = decide(replace(FACTS, health=Health(verdict=ALERT_FAULT, fault=fault)), POLICY, NOW)
    assert (decision.action, decision.is_free) == (ALERT_FAULT, False)
    assert decision.reasons == ("feed of K is faulty (volume): 3 rows; expected about 900.",)


def test_a_decision_blocked_by_a_fault_is_made_at_the_next_sound_key() -> None:
    after = replace(FACTS, index=71, last_judged=69)
    assert is_decision_key(after, POLICY)
    assert not is_decision_key(replace(after, last_judged=70), POLICY)


def test_a_request_makes_any_key_a_decision_key() -> None:
    assert decide(replace(FACTS, index=73, last_judged=72, request=1), POLICY, NOW).action == RETRAIN


def test_the_first_model_needs_no_decision_key() -> None:
    first = replace(FACTS, index=73, last_judged=None, live_cutoff=None, last_trained=None)
    decision = decide(first, POLICY, NOW)
    assert (decision.action, decision.reasons) == (RETRAIN, ("no model is live and 60 labelled keys are available.",))
    trained = replace(first, last_trained=70)
    assert decide(trained, POLICY, NOW).action == WAIT, "a first model that failed is not trained again at once"


def test_the_budget_blocks_a_training_and_states_the_excess() -> None:
    policy = replace(POLICY, monthly_budget_usd=1.0)
    assert decide(replace(FACTS, balance=Balance(spent_usd=0.6, next_usd=0.4)), policy, NOW).action == RETRAIN
    over = budgets.over_budget(0.7, budgets.Expected(usd=0.4), 1.0)
    decision = decide(replace(FACTS, balance=Balance(spent_usd=0.7, next_usd=0.4, over=over)), policy, NOW)
    assert decision.action == WAIT
    assert "the budget is 1.00, exceeded by 0.10" in decision.reasons[0]
    assert "the limit is 28" in decision.reasons[1]


def test_a_held_key_is_left_out_and_does_not_stop_a_training() -> None:
    decision = decide(replace(FACTS, held=("B",)), POLICY, NOW)
    assert decision.action == RETRAIN
    assert decision.numbers.held == ("B",)


@given(
    index=st.integers(0, 400),
    live=st.integers(0, 400) | st.none(),
    every=st.integers(1, 30),
    max_age=st.integers(1, 60),
    cooldown=st.integers(0, 30),
    verdict=st.sampled_from(["fine", "drift", "alert_fault"]),
)
def test_every_decision_has_a_reason_and_training_is_never_early(
    index: int, live: int | None, every: int, max_age: int, cooldown: int, verdict: str
) -> None:
    if live is not None and live > index:
        live = index
    facts = replace(
        FACTS, index=index, live_cutoff=live, last_trained=live, last_judged=None, health=Health(verdict=verdict)
    )
    policy = Retraining(decide_every=every, max_age=max_age, cooldown=cooldown)
    decision = decide(facts, policy, NOW)
    assert decision.reasons
    assert all(decision.reasons)
    if decision.action == RETRAIN and live is not None:
        assert index + 1 - live >= max(cooldown, max_age)
        assert index % every == 0
    assert decision == decide(facts, policy, NOW)
