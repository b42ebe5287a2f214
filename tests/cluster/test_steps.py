"""Steps as pods of the trainer image: results, every class of failure, runs that end before their pod."""

from __future__ import annotations

import signal
import threading
import time
from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.base.failures import LOST
from platform_assets.engine import product_files
from platform_assets.kubernetes.launcher import KubernetesLauncher
from platform_assets.launch.attempt import LONGEST_LINE, MOST_LINES
from platform_assets.launch.launchers import StepFailure, StepLauncher
from platform_assets.launch.profiles import PROFILES, StepProfile, Toleration
from platform_assets.launch.tries import NotReady
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions
from platform_assets.training.steps.jobs import Job
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launching
from tests.cluster.node import Node
from tests.cluster.pods import Pods
from tests.cluster.step_runs import SMALL, STEP, StepRuns
from tests.cluster.waiting import wait_until
from tests.cluster.ways import evict

STARTED_S = 120.0


def value(runs: StepRuns, *ends: str, **more: Any) -> int:
    """Run a step to its end and return its result: the number of the try that gave it."""
    return int(runs.run(*ends, **more).result["value"])


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


def test_a_zone_that_is_not_the_datas_is_warned_of_and_recorded(runs: StepRuns, labelled: None) -> None:
    outcome = runs.run("well", profile=SMALL.replace(data_zone="zone-b"))
    assert any("runs in zone zone-a but its data is in zone-b" in line for line in outcome.lines)
    (record,) = runs.records()
    assert record["zone"] == "zone-a"


# Failures --------------------------------------------------------------------------------------------------------


def test_a_deleted_pod_is_replaced_after_it_has_saved(runs: StepRuns) -> None:
    runs.when_ready(lambda name: runs.pods.api.delete_namespaced_pod(name, runs.pods.namespace))
    assert value(runs, "stay", "well") == 2
    assert runs.reasons() == ["preempted", "finished"]
    assert runs.marks.exists("saved")
    first, second = runs.records()
    assert first["id"] != second["id"]
    assert first["said"]


def test_a_pod_that_vanishes_is_replaced(runs: StepRuns) -> None:
    runs.when_ready(lambda name: runs.pods.api.delete_namespaced_pod(name, runs.pods.namespace, grace_period_seconds=0))
    assert value(runs, "stay", "well") == 2
    assert runs.reasons()[1:] == ["finished"]
    assert runs.reasons()[0] in ("preempted", "node_lost")


def test_a_pod_that_is_evicted_by_the_api_is_replaced(runs: StepRuns) -> None:
    runs.when_ready(lambda name: evict(runs.pods.api, name, runs.pods.namespace))
    assert value(runs, "stay", "well") == 2
    first, _ = runs.records()
    assert first["reason"] == "evicted", "an eviction counts as preempted on spot nodes only"
    assert "EvictionByEvictionAPI" in first["said"]


@pytest.mark.long
def test_a_pod_whose_node_loses_power_is_replaced_elsewhere(
    runs: StepRuns, machines: list[Node], reachable: Cluster
) -> None:
    nodes = {node.name: node for node in machines}
    lost: list[Node] = []

    def cut(name: str) -> None:
        lost.append(nodes[runs.pods.read(name).spec.node_name])
        lost[0].power_off()

    runs.when_ready(cut)
    try:
        assert value(runs, "stay", "well") == 2
    finally:
        lost[0].power_on()
    first, second = runs.records()
    assert (first["reason"], second["reason"]) == ("node_lost", "finished")
    assert first["node"] == lost[0].name != second["node"]
    reachable.wait_for_node(lost[0].name)


def test_memory_is_asked_for_once_more(runs: StepRuns) -> None:
    with pytest.raises(StepFailure, match="it ran out of memory") as problem:
        runs.run("memory", profile=SMALL.replace(memory_gb=0.3, larger_memory_gb=0.4))
    assert problem.value.kind == "out_of_memory"
    assert [(record["exit_code"], record["memory_gb"]) for record in runs.records()] == [(137, 0.3), (137, 0.4)]


def test_spot_losses_end_on_demand(runs: StepRuns, labelled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"cores": 1, "memory_gb": 0.5, "shm_gb": 0.05}
    monkeypatch.setitem(PROFILES, "cpu_small", PROFILES["cpu_small"].replace(**size))
    runs.when_ready(
        lambda name: runs.pods.api.delete_namespaced_pod(name, runs.pods.namespace, grace_period_seconds=1),
        count=LOST.tries,
    )
    runs.run(*["stay"] * LOST.tries, "well", profile=PROFILES["cpu_spot"].replace(**size))
    result = runs.records()
    assert [record["reason"] for record in result] == ["preempted"] * LOST.tries + ["finished"]
    assert [record["profile"] for record in result] == ["cpu_spot"] * LOST.tries + ["cpu_small"]
    assert [record["usd_per_hour"] for record in result] == [0.03] * LOST.tries + [0.08]


def test_an_own_error_fails_at_once_with_the_steps_last_lines(runs: StepRuns) -> None:
    with pytest.raises(StepFailure) as problem:
        runs.run("code")
    assert (problem.value.kind, problem.value.exit_code) == ("code", 1)
    assert "ValueError: the double was told to fail" in (problem.value.description or "")
    assert runs.reasons() == ["code"]
    runs.wait_until_empty()


def test_a_step_without_room_fails_after_its_schedule_timeout(runs: StepRuns) -> None:
    size = StepProfile(
        name="gpu",
        cores=1,
        memory_gb=2,
        accelerators=1,
        usd_per_hour=20,
        priced_on="2026-11-01",
        schedule_timeout_s=2,
        tolerations=(Toleration(key="nvidia.com/gpu"),),
    )
    with pytest.raises(StepFailure, match=r"no node had room for it: .*Insufficient nvidia\.com/gpu") as problem:
        runs.run("well", profile=size)
    assert problem.value.kind == "unschedulable"
    assert {(record["wall_s"], record["cost_usd"]) for record in runs.records()} == {(0, 0)}
    runs.wait_until_empty()


def test_a_missing_image_fails_with_its_own_class(runs: StepRuns) -> None:
    name = (runs.settings.trainer_image or "").partition("@")[0]
    with pytest.raises(StepFailure, match="its image could not be pulled"):
        runs.run("well", launcher=runs.launcher(trainer_image=f"{name}@sha256:{0:064}", trainer_libraries=None))
    assert set(runs.reasons()) == {"image"}
    runs.wait_until_empty()


def set_quota(runs: StepRuns, **hard: str) -> None:
    """Put a quota on the namespace, and wait until it is in force."""
    api, namespace = runs.pods.api, runs.pods.namespace
    api.create_namespaced_resource_quota(namespace, {"metadata": {"name": "team"}, "spec": {"hard": hard}})
    wait_until(
        lambda: bool(api.read_namespaced_resource_quota("team", namespace).status.hard), STARTED_S, "the quota counts"
    )


def test_a_full_quota_is_waited_for(runs: StepRuns) -> None:
    set_quota(runs, pods="0")
    more = {"spec": {"hard": {"pods": "1"}}}
    free = threading.Timer(8.0, runs.pods.api.patch_namespaced_resource_quota, ["team", runs.pods.namespace, more])
    free.start()
    lines = runs.run("well", profile=SMALL.replace(schedule_timeout_s=60)).lines
    assert runs.reasons()[-1] == "finished"
    assert any("exceeded quota" in line and "s for the quota" in line for line in lines)


def test_a_quota_of_cpu_limits_takes_a_profile_that_states_one(runs: StepRuns) -> None:
    set_quota(runs, **{"limits.cpu": "2"})
    with pytest.raises(NotReady, match=r"must specify limits\.cpu"):
        runs.run("well")
    runs.run("well", profile=SMALL.replace(cpu_limit=1))
    assert runs.reasons() == ["finished"]


def test_a_step_that_never_ends_is_ended_by_its_deadline(runs: StepRuns) -> None:
    with pytest.raises(StepFailure, match="it exceeded its deadline") as problem:
        runs.run("stay", profile=SMALL.replace(deadline_s=31, grace_s=30))
    assert problem.value.kind == "deadline"


# Runs that end before their pod --------------------------------------------------------------------------------------


class Interrupted(KubernetesLauncher):
    """Is interrupted once its step stands waiting."""

    runs: StepRuns

    def _create(self, *asked: Any) -> Any:
        super()._create(*asked)
        wait_until(lambda: self.runs.marks.exists("ready"), STARTED_S, "the step waits")
        raise KeyboardInterrupt


def test_a_cancelled_run_ends_its_pod_after_it_has_saved(runs: StepRuns) -> None:
    launcher = runs.launcher(Interrupted)
    assert isinstance(launcher, Interrupted)
    launcher.runs = runs
    with pytest.raises(BaseException) as problem:  # noqa: PT011  # Dagster wraps it in its own
        runs.run("stay", launcher=launcher)
    assert "KeyboardInterrupt" in repr(problem.value) or isinstance(problem.value, KeyboardInterrupt)
    assert runs.marks.exists("saved")
    assert runs.reasons() == ["cancelled"]
    runs.wait_until_empty()


@pytest.fixture
def orphaned_pod(runs: StepRuns, launches: Launching) -> str:
    """The pod of a run that was killed while its step waits."""
    run = launches.start(module=STEP, extras={"ends": ["stay"]})
    wait_until(lambda: runs.marks.exists("ready"), STARTED_S, "the step waits", run.tail)
    run.kill()
    return runs.only_pod()


def test_a_replaced_run_goes_on_watching_the_pod(runs: StepRuns, orphaned_pod: str) -> None:
    runs.marks.touch("go")
    outcome = runs.run("stay")
    assert outcome.result["value"] == 1
    assert any(f"pod {orphaned_pod} of run" in line and "watching it from now on" in line for line in outcome.lines)
    assert runs.reasons() == ["finished"]
    assert runs.marks.starts() == 1


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


@pytest.mark.long
def test_an_api_that_says_nothing_for_a_minute_is_waited_for(
    runs: StepRuns, reachable: Cluster, machines: list[Node]
) -> None:
    assert reachable.control is not None
    server = next(item for item in reachable.control.space.services if item.name == "kube-apiserver")

    def pause(_: str) -> None:
        server.send(signal.SIGSTOP)
        time.sleep(60)
        server.send(signal.SIGCONT)
        runs.marks.touch("go")

    thread = runs.when_ready(pause)
    outcome = runs.run("stay", launcher=runs.launcher(patience_s=300))
    thread.join()
    assert runs.reasons() == ["finished"]
    assert any("the Kubernetes API did not answer" in line and "retrying in" in line for line in outcome.lines)
    assert runs.marks.starts() == 1
    for node in machines:
        reachable.wait_for_node(node.name)


# The libraries of a training's fingerprint ------------------------------------------------------------------------


def test_a_step_refuses_a_setting_that_is_not_true_before_it_works(runs: StepRuns, pods: Pods) -> None:
    spec = product_files.load("flight_delays")
    how = {"device": "cpu", "precision": "float32", "training_keys": [], "holdout_keys": []}
    data = {"features": dict[str, str](), "outcomes": dict[str, str]()}
    job = Job(product=spec.name, cutoff="2013-07-01", fingerprint="f" * 64, **how, **data)

    def waits(context: Any, launcher: Any) -> None:
        extras = instructions.to_extras(
            job, Learning.for_product(spec), launcher.libraries(PROFILES[spec.training.profile])
        )
        launcher.run(context=context, module="platform_assets.launch.train", extras=extras, profile=SMALL)

    waits.__annotations__ = {"context": dg.AssetExecutionContext, "launcher": dg.ResourceParam[StepLauncher]}
    resources = {"launcher": runs.launcher(trainer_libraries="torch=1.0")}
    sentence = r"libraries of this step differ from those .* torch \S+ \(expected 1\.0\)"
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(StepFailure, match=sentence):
        dg.materialize([dg.asset(waits)], resources=resources, instance=instance)
    assert runs.records() == [], "no lease was taken"
