"""Steps as pods of the trainer image: results, every class of failure, runs that end before their pod."""

import time
from datetime import datetime

import pytest

from platform_assets.launch.attempt import LONGEST_LINE, MOST_LINES
from platform_assets.launch.tries import NotReady
from tests.cluster.launching import Launching
from tests.cluster.step_runs import SMALL, STEP, StepRuns
from tests.cluster.waiting import wait_until

STARTED_S = 120.0


# A try -----------------------------------------------------------------------------------------------------------


def test_the_log_of_a_loud_step_is_cut_short_in_the_run(runs: StepRuns) -> None:
    message = "\n".join(runs.run("loud").lines)
    assert "line 100\n" in message
    assert "line 2999" not in message
    assert f"wrote more than {MOST_LINES} lines" in message


@pytest.mark.long
def test_a_step_that_writes_100_mb_has_its_result_and_leaves_a_run_that_can_be_read(runs: StepRuns) -> None:
    outcome = runs.run("flood", profile=SMALL.replace(memory_gb=1))
    assert outcome.result["value"] == 1
    long = [line for line in outcome.lines if "xxx" in line]
    # How many there are depends on the kubelet, which rotates the log while it is read.
    assert {len(line) for line in long} <= {LONGEST_LINE + len(" ... (truncated)")}
    assert runs.reasons() == ["finished"]


# Failures --------------------------------------------------------------------------------------------------------


def set_quota(runs: StepRuns, **hard: str) -> None:
    """Put a quota on the namespace, and wait until it is in force."""
    api, namespace = runs.pods.api, runs.pods.namespace
    api.create_namespaced_resource_quota(namespace, {"metadata": {"name": "team"}, "spec": {"hard": hard}})
    wait_until(
        lambda: bool(api.read_namespaced_resource_quota("team", namespace).status.hard), STARTED_S, "the quota counts"
    )


def test_a_quota_of_cpu_limits_takes_a_profile_that_states_one(runs: StepRuns) -> None:
    set_quota(runs, **{"limits.cpu": "2"})
    with pytest.raises(NotReady, match=r"must specify limits\.cpu"):
        runs.run("well")
    runs.run("well", profile=SMALL.replace(cpu_limit=1))
    assert runs.reasons() == ["finished"]


# Runs that end before their pod --------------------------------------------------------------------------------------


@pytest.fixture
def orphaned_pod(runs: StepRuns, launches: Launching) -> str:
    """The pod of a run that was killed while its step waits."""
    run = launches.start(module=STEP, extras={"ends": ["stay"]})
    wait_until(lambda: runs.marks.exists("ready"), STARTED_S, "the step waits", run.tail)
    run.kill()
    return runs.only_pod()


def test_an_attempt_that_nobody_saw_end_is_settled_by_the_next_run(runs: StepRuns, orphaned_pod: str) -> None:
    assert runs.reasons() == ["under_way"]
    runs.pods.wait_until_running(orphaned_pod)
    time.sleep(3)
    runs.pods.api.delete_namespaced_pod(orphaned_pod, runs.pods.namespace, grace_period_seconds=0)
    runs.pods.wait_until_gone(orphaned_pod)
    runs.run("well")
    assert runs.reasons() == ["preempted", "finished"]
    gone = runs.records()[0]
    assert gone["said"].startswith("nobody watched it: event Killing")
    (started,) = [
        event.first_timestamp
        for event in runs.pods.api.list_namespaced_event(runs.pods.namespace).items
        if (event.involved_object.name, event.reason) == (orphaned_pod, "Started")
    ]
    assert datetime.fromisoformat(gone["started_at_utc"]) == started
    assert gone["wall_s"] >= 3, "what ran is paid for, by the events of its pod"
