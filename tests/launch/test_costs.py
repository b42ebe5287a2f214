"""Costs add up: each attempt once, each dollar in one part, each attempt with the model it led to."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from platform_assets.launch import budgets, costs
from platform_assets.launch.budgets import Expected
from platform_assets.store.history.attempts import SCHEMA
from platform_assets.store.records.attempts import UNDER_WAY, Attempt, unique_attempts
from tests.doubles.attempts import newest_first

OLD = Attempt(wall_s=1800, usd_per_hour=2.0, reason="finished")
SPOT = Attempt(
    id="a",
    step="train",
    fingerprint="f",
    cutoff="0010",
    is_spot=True,
    usd_per_hour=1.0,
    on_demand_usd_per_hour=4.0,
    wall_s=3600.0,
    reason="preempted",
    resumed_from_step=20,
    steps_done=60,
    steps_saved=50,
    steps_lost=10,
    waited_s=30.0,
)


def of(attempt: Attempt, name: str) -> Any:
    return newest_first(attempt)[name].item()


def next_usd(attempts: list[Attempt], profile: str) -> float | None:
    return costs.next_usd(newest_first(*attempts), profile)


def test_an_attempt_costs_its_time_at_its_price() -> None:
    killed = Attempt(wall_s=900, usd_per_hour=2.0, reason="vanished")
    assert of(OLD, "usd") == 1.0
    assert costs.total_usd(newest_first(OLD, killed)) == 1.5
    assert of(replace(OLD, wall_s=None), "usd") == 0.0, "it never started"
    assert of(OLD, "saving_usd") == 0.0
    assert of(SPOT, "saving_usd") == 3.0
    assert newest_first().schema == SCHEMA
    assert costs.total_usd(newest_first()) == 0.0


def test_an_attempt_begins_with_its_start_or_request() -> None:
    moments = {"requested_at_utc": "2026-01-01T00:00:00+00:00", "ended_at_utc": "2026-01-01T00:10:00+00:00"}
    given_up = replace(OLD, **moments, reason="unschedulable", wall_s=None, started_at_utc=None)
    assert of(given_up, "began_at_utc") == moments["requested_at_utc"]
    started = replace(given_up, started_at_utc="2026-01-01T00:05:00+00:00")
    assert of(started, "began_at_utc") == "2026-01-01T00:05:00+00:00"


def test_the_next_training_costs_as_much_as_the_newest_finished_one_with_all_its_attempts() -> None:
    killed = Attempt(wall_s=900, usd_per_hour=2.0, reason="vanished")
    assert next_usd([killed, OLD], "gpu") == 1.0, "another work's failure is not its cost"
    assert next_usd([killed], "gpu") is None
    export = replace(SPOT, step="export", fingerprint="e", reason="finished", wall_s=360.0)
    finished = replace(SPOT, reason="finished", wall_s=1800.0)
    before = replace(OLD, cutoff="0009", fingerprint="b")
    assert next_usd([export, finished, SPOT, before], "gpu") == pytest.approx(0.1 + 0.5 + 1.0)
    assert next_usd([replace(export, cutoff="0008"), finished, replace(export), before], "gpu") == 0.5


def test_only_trainings_on_the_same_profile_predict_the_next_cost() -> None:
    small = replace(OLD, profile="cpu_small", fingerprint="s")
    assert next_usd([small], "cpu_small") == 1.0
    assert next_usd([small], "gpu") is None
    large = replace(small, profile="gpu", usd_per_hour=10.0, fingerprint="g")
    assert next_usd([large, small], "cpu_small") == 1.0, "the newest of its size, not the newest of all"
    preempted = replace(large, profile="gpu_spot", usd_per_hour=4.0, reason="preempted")
    assert next_usd([large, preempted], "gpu_spot") == 7.0, "it started on spot nodes and ended on demand"
    assert next_usd([large], "gpu_spot") is None
    assert next_usd([OLD], "gpu") == 1.0, "a record without a size has the only size that existed"


def remaining_usd(fingerprint: str, *attempts: Attempt) -> float:
    return costs.remaining_usd(1.0, newest_first(*attempts), fingerprint)


def test_a_running_training_costs_the_rest_after_its_saved_work() -> None:
    assert remaining_usd("f", SPOT) == pytest.approx(1.0 - 0.75)
    assert remaining_usd("f", SPOT, SPOT) == 0.0, "it already costs more than the one before: unknown"
    assert remaining_usd("another", SPOT) == 1.0


@pytest.mark.parametrize(
    ("spent", "following", "budget", "message"),
    [
        (9.0, Expected(usd=9.0), None, None),
        (0.6, Expected(usd=0.4), 1.0, None),
        (0.7, Expected(usd=0.4), 1.0, "cost 0.70 USD and the next about 0.40; the budget is 1.00, exceeded by 0.10."),
        (0.0, Expected(usd=0.0), 0.0, None),
        (0.0, Expected(usd=0.01), 0.0, "the budget is 0.00"),
        (
            0.0,
            Expected(usd=89.64, reason="2.49 USD per hour x 36 h", advice="State hours."),
            5.0,
            "the next about 89.64 (2.49 USD per hour x 36 h); the budget is 5.00, exceeded by 84.64. State hours.",
        ),
    ],
)
def test_a_launch_over_budget_states_the_excess(
    spent: float, following: Expected, budget: float | None, message: str | None
) -> None:
    text = budgets.over_budget(spent, following, budget)
    assert (text is None) == (message is None)
    assert message is None or message in str(text)


def test_the_launchers_record_wins_over_that_of_the_step_and_the_newest_among_equals() -> None:
    step, launcher = replace(SPOT, by="step"), replace(SPOT, by="launcher", reason="evicted")
    assert unique_attempts([(1, launcher), (2, step)]) == [(1, launcher)]
    assert unique_attempts([(1, step), (2, replace(step, reason="finished"))]) == [
        (2, replace(step, reason="finished"))
    ]
    assert [number for number, _ in unique_attempts([(1, OLD), (2, OLD), (3, step)])] == [3, 2, 1], "all old ones count"


def test_an_attempt_that_outlived_its_node_costs_what_the_step_itself_recorded() -> None:
    lost = replace(SPOT, by="launcher", reason="node_lost", wall_s=600.0, ended_at_utc="2026-11-24T10:10:00+00:00")
    own = replace(SPOT, by="step", reason="finished", ended_at_utc="2026-11-24T11:00:00+00:00")
    for records in ([(1, lost), (2, own)], [(1, own), (2, lost)]):
        ((_, merged),) = unique_attempts(records)
        assert (merged.by, merged.reason, merged.wall_s) == ("launcher", "finished", 3600.0)
        assert merged.ended_at_utc == own.ended_at_utc
    ((_, stopped),) = unique_attempts([(1, lost), (2, replace(own, reason="code"))])
    assert (stopped.reason, stopped.wall_s) == ("node_lost", 3600.0)
    for other in (replace(own, reason="vanished"), replace(own, id="b")):
        assert (1, lost) in unique_attempts([(1, lost), (2, other)])
    evicted = replace(lost, reason="evicted")
    assert unique_attempts([(1, evicted), (2, own)]) == [(1, evicted)], "a cluster that saw the end knows more"


def test_any_end_wins_over_the_announcement() -> None:
    step, launcher = replace(SPOT, by="step"), replace(SPOT, by="launcher")
    announced = replace(launcher, reason=UNDER_WAY, wall_s=0.0)
    assert unique_attempts([(1, announced), (2, step)]) == [(2, step)]
    assert unique_attempts([(1, announced), (2, step), (3, launcher)]) == [(3, launcher)]
    assert unique_attempts([(1, announced)]) == [(1, announced)]


RECORDS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["step", "launcher", None])), max_size=12
)


@given(RECORDS, st.randoms(use_true_random=False))
def test_deduplication_is_idempotent_and_order_free(records: list[tuple[Any, Any]], stream: random.Random) -> None:
    numbered = [(index, replace(OLD, id=name, by=origin)) for index, (name, origin) in enumerate(records, start=1)]
    once = unique_attempts(numbered)
    shuffled = list(numbered)
    stream.shuffle(shuffled)
    assert unique_attempts(shuffled) == once
    assert unique_attempts(once) == once
    assert len(once) == len({name for name, _ in records if name}) + sum(name is None for name, _ in records)


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.25),
        ({"reason": "finished"}, 0.0),
        ({"steps_lost": None}, 0.25),
        ({"steps_lost": None, "steps_saved": None}, 1.0),
        ({"steps_done": 20, "steps_lost": 0}, 1.0),
        ({"steps_lost": 0}, 0.0),
        ({"steps_lost": 99}, 1.0),
    ],
)
def test_lost_work_is_the_work_of_this_attempt_that_was_not_saved(changes: dict[str, Any], share: float) -> None:
    assert of(replace(SPOT, **changes), "lost_share") == share


def test_a_record_without_steps_claims_no_saved_work() -> None:
    assert of(Attempt(reason="vanished", wall_s=1.0, usd_per_hour=1.0), "lost_share") == 1.0


ENDS = st.sampled_from(["finished", "preempted", "vanished", "failed: ValueError: no", "out_of_memory"])
ATTEMPTS = st.builds(
    lambda reason, fingerprint, wall_s, done, lost, cutoff, step, is_spot: replace(
        SPOT,
        reason=reason,
        fingerprint=fingerprint,
        wall_s=wall_s,
        steps_done=20 + done,
        steps_lost=lost,
        cutoff=cutoff,
        step=step,
        is_spot=is_spot,
        digest=None,
    ),
    ENDS,
    st.sampled_from(["f", "g", None]),
    st.floats(0, 1e5),
    st.integers(0, 50),
    st.one_of(st.none(), st.integers(0, 60)),
    st.sampled_from(["0010", "0011", "0012"]),
    st.sampled_from(["train", "export"]),
    st.booleans(),
)
