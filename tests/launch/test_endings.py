"""What a failure means for the next try: classes, their budgets, and the last try on demand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base import failures as table
from platform_assets.base.failures import FAILURES, LOST, Budget, Failure
from platform_assets.launch.endings import Ending, Try, first_try, next_try
from platform_assets.launch.prices import paid_tries
from platform_assets.launch.profiles import PROFILES, StepProfile

LIMIT_GB = 2.5
"""Of a namespace, where a profile has none."""
BY_NAME = {failure.name: failure for failure in FAILURES}


def tries(size: str, *failures: str, lost: Budget = LOST) -> list[tuple[str, float] | None]:
    """Return profile and memory of each try that these failures lead to, one after the other."""
    past: list[tuple[Try, Ending]] = []
    plan: Try | None = first_try(PROFILES[size])
    result: list[tuple[str, float] | None] = []
    for failure in failures:
        assert plan is not None
        past.append((plan, Ending(failure=BY_NAME[failure], evidence="it ended", limit_gb=LIMIT_GB)))
        plan = next_try(past, lost=lost)
        result.append(None if plan is None else (plan.profile.name, plan.memory_gb))
    return result


def test_spot_losses_are_tried_again_and_the_last_time_on_demand() -> None:
    losses = ["preempted", "node_lost", "evicted", "preempted"]
    spot, on_demand = ("gpu_spot", 32), ("gpu", 32)
    assert tries("gpu_spot", *losses) == [spot, spot, spot, on_demand]
    assert tries("gpu_spot", *losses, *losses) == [spot, spot, spot, *[on_demand] * 5]
    assert tries("gpu_spot", *losses, *losses, "preempted")[-1] is None


def test_losses_use_up_no_other_budget_and_others_not_theirs() -> None:
    result = tries(
        "gpu_spot", "preempted", "out_of_memory", "preempted", "admission", "image", "preempted", "admission"
    )
    spot, large = ("gpu_spot", 32), ("gpu_spot", 64)
    assert result == [spot, large, large, large, large, large, large]


def test_memory_is_asked_for_once_more_and_stays_for_later_tries() -> None:
    assert tries("cpu_small", "out_of_memory") == [("cpu_small", 8)]
    assert tries("cpu_small", "out_of_memory", "node_lost", "out_of_memory") == [
        ("cpu_small", 8),
        ("cpu_small", 8),
        None,
    ]


def test_a_profile_may_say_how_much_more() -> None:
    size = StepProfile(name="large", cores=1, memory_gb=4, larger_memory_gb=6, usd_per_hour=1, priced_on="2026-11-01")
    ending = Ending(failure=table.OUT_OF_MEMORY, evidence="OOMKilled", exit_code=137)
    plan = next_try([(first_try(size), ending)])
    assert plan is not None
    assert plan.memory_gb == 6
    assert plan.reason == "with 6 GB of memory instead of 4"


def test_a_node_with_a_broken_device_is_forbidden_and_one_where_nothing_starts_is_avoided() -> None:
    past = [(first_try(PROFILES["gpu_spot"]), Ending(failure=table.NOT_STARTED, evidence="it hung", node="slow"))]
    for node in ("broken-1", "broken-2"):
        plan = next_try(past)
        assert plan is not None
        past.append((plan, Ending(failure=table.HARDWARE, evidence="Xid 79", node=node)))
    plan = next_try(past)
    assert plan is not None
    assert (plan.forbidden_nodes, plan.avoided_nodes) == (("broken-1", "broken-2"), ("slow",))
    past.append((plan, Ending(failure=table.PREEMPTED, evidence="it was taken away", node="well")))
    plan = next_try(past)
    assert plan is not None
    assert (plan.forbidden_nodes, plan.avoided_nodes) == (("broken-1", "broken-2"), ("slow",))


@pytest.mark.parametrize(
    ("changes", "limit_gb", "expected"),
    [
        ({"storage_gb": 5}, 5.1, 10),
        ({"storage_gb": 5, "larger_storage_gb": 8}, 5.1, 8),
        ({}, 2.5, 5),  # of the namespace
    ],
)
def test_storage_that_ran_out_is_doubled_once(changes: dict[str, float], limit_gb: float, expected: float) -> None:
    size = PROFILES["cpu_small"].replace(**changes)
    ending = Ending(failure=table.OUT_OF_DISK, evidence="Evicted", limit_gb=limit_gb)
    past = [(first_try(size), ending)]
    plan = next_try(past)
    assert plan is not None
    assert plan.storage_gb == expected
    assert "of ephemeral storage instead of" in plan.reason
    assert next_try([*past, (plan, ending)]) is None


def test_no_retry_sets_a_limit_of_storage_that_was_not_there_before() -> None:
    """A try that had none is not helped by one, and the same try again fills the same disk."""
    ending = Ending(failure=table.OUT_OF_DISK, evidence="Evicted")
    assert next_try([(first_try(PROFILES["cpu_small"]), ending)]) is None


def test_no_spot_node_means_on_demand_at_once() -> None:
    assert tries("gpu_spot", "unschedulable", "unschedulable") == [("gpu", 32), None]


@pytest.mark.parametrize("failure", [failure for failure in FAILURES if not failure.is_loss], ids=lambda it: it.name)
def test_each_class_has_its_budget(failure: Failure) -> None:
    more = failure.budget.tries
    result = tries("cpu_small", *[failure.name] * (more + 1))
    assert [item is not None for item in result] == [True] * more + [False]


def test_the_table_says_what_each_class_may_cost() -> None:
    losses = ["preempted", "consolidated", "preempted_by_queue", "node_lost", "evicted", "hardware", "killed"]
    losses += ["hung", "peers_lost"]
    assert [failure.name for failure in FAILURES if failure.is_loss] == losses
    assert {failure.name: (failure.budget.tries, failure.budget.pause_s) for failure in FAILURES} == {
        **dict.fromkeys(losses, (0, 0)),
        "out_of_memory": (1, 0),
        "out_of_disk": (1, 0),
        "out_of_shm": (0, 0),
        "incomplete": (4, 15),
        "not_started": (1, 0),
        "unschedulable": (0, 0),
        "image": (1, 15),
        "init": (1, 5),
        "admission": (2, 10),
        "deadline": (0, 0),
        "code": (0, 0),
    }


@pytest.mark.parametrize(
    "kind",
    ["name", "signal", "pod_reasons", "waiting", "disruptions", "events", "taints", "node_conditions", "patterns"],
)
def test_evidence_stands_for_one_class(kind: str) -> None:
    result = [getattr(failure, kind) for failure in FAILURES]
    item = [name for names in result for name in (names if isinstance(names, tuple) else [names]) if name is not None]
    assert len(item) == len(set(item))


def test_pauses_double_up_to_a_minute() -> None:
    past = [(first_try(PROFILES["cpu_small"]), Ending(failure=table.PREEMPTED, evidence="it ended"))]
    pauses = []
    for _ in range(8):
        plan = next_try(past, lost=Budget(tries=9, pause_s=1.0))
        assert plan is not None
        pauses.append(plan.pause_s)
        past.append((plan, past[0][1]))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda it: it.name)
def test_what_is_final_is_never_tried_again(failure: Failure) -> None:
    ending = Ending(failure=failure, evidence="the namespace is forbidden", is_final=True)
    assert next_try([(first_try(PROFILES["gpu_spot"]), ending)]) is None


@given(st.lists(st.sampled_from(FAILURES), min_size=1, max_size=60), st.sampled_from(sorted(PROFILES)))
def test_tries_always_come_to_an_end(failures: list[Failure], size: str) -> None:
    past: list[tuple[Try, Ending]] = []
    plan: Try | None = first_try(PROFILES[size])
    for failure in failures:
        if plan is None:
            break
        past.append((plan, Ending(failure=failure, evidence="it ended")))
        plan = next_try(past)
    most = 2 * (LOST.tries + 1) + sum(item.budget.tries + 1 for item in FAILURES) + 1
    assert len(past) <= most
    memory = [tried.memory_gb for tried, _ in past]
    assert memory == sorted(memory)


def course(past: list[tuple[Try, Ending]], size: StepProfile) -> list[StepProfile]:
    """Return the profiles of the costliest course of failures: the greedy one, checked against all others below."""
    plan = next_try(past) if past else first_try(size)
    if plan is None:
        return []
    ends = [table.NODE_LOST, *(item for item in FAILURES if item.budget.tries and not item.is_unpaid)]
    rest = [
        course([*past, (plan, Ending(failure=failure, evidence="it ended", limit_gb=LIMIT_GB))], size)
        for failure in ends
    ]
    return [plan.profile, *max(rest, key=lambda candidate: sum(item.usd_per_hour for item in candidate))]


@pytest.mark.parametrize("size", PROFILES)
def test_the_tries_that_may_be_paid_for_are_those_of_the_costliest_course(size: str) -> None:
    """The classes that end before a step ran (image, init, admission, unschedulable) cost nothing."""
    result = paid_tries(PROFILES[size])
    assert sorted(item.name for item in result) == sorted(item.name for item in course([], PROFILES[size]))
