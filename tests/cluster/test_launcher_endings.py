"""Steps whose pods end in every way: exit codes, results and prices reach the ledger."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client

from tests.cluster import ways
from tests.cluster.launching import Launching
from tests.cluster.node import Node
from tests.cluster.waiting import wait_until

GPU = "nvidia.com/gpu"


def delete(launches: Launching, pod: str) -> None:
    launches.core.delete_namespaced_pod(pod, launches.namespace)


def evict(launches: Launching, pod: str) -> None:
    ways.evict(launches.core, pod, launches.namespace)


def taint(launches: Launching, pod: str) -> None:
    node = launches.core.read_namespaced_pod(pod, launches.namespace).spec.node_name
    taints = {"spec": {"taints": [{"key": "maintenance", "value": launches.namespace, "effect": "NoExecute"}]}}
    launches.core.patch_node(node, taints)
    wait_until(lambda: is_deleted(launches, pod), 60, f"{pod} is deleted")
    launches.core.patch_node(node, {"spec": {"taints": None}})


def is_deleted(launches: Launching, pod: str) -> bool:
    items = [item for item in launches.core.list_namespaced_pod(launches.namespace).items if item.metadata.name == pod]
    return not items or items[0].metadata.deletion_timestamp is not None


@pytest.mark.parametrize(("loss", "reason"), [(delete, "preempted"), (evict, "evicted"), (taint, "evicted")])
def test_a_pod_that_is_taken_away_shows_its_exit_code(
    launches: Launching, loss: Callable[[Launching, str], None], reason: str
) -> None:
    run = launches.start("hold; exit 3", "report")
    run.wait_for("ready")
    loss(launches, launches.pod())
    ended = run.ended()
    assert not ended.error
    lost, finished = ended.records
    assert (lost["reason"], lost["exit_code"]) == (reason, 3)
    assert (finished["reason"], finished["exit_code"]) == ("finished", 0)


def test_a_pod_that_is_evicted_because_its_node_is_short_of_memory_is_tried_again(
    launches: Launching, machines: list[Node]
) -> None:
    run = launches.start("hold; put saved; exit 3", "report")
    run.wait_for("ready")
    name = launches.core.read_namespaced_pod(launches.pod(), launches.namespace).spec.node_name
    with ways.short_of_memory(next(node for node in machines if node.name == name)):
        run.wait_for("it was evicted")
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["evicted", "finished"]
    assert launches.steps.marks.exists("saved"), "its kubelet gave it time to save"
    # A kubelet may remove an evicted container before it has read its exit code: kubernetes#122160.
    assert ended.records[0]["exit_code"] in (3, None), ended.records[0]["said"]
    assert "The node was low on resource: memory" in ended.records[0]["said"]


@pytest.mark.parametrize("end", ["", "; exit 1"])
@pytest.mark.parametrize("loss", [delete, evict])
def test_a_result_that_is_reported_within_the_grace_period_is_taken(
    launches: Launching, loss: Callable[[Launching, str], None], end: str
) -> None:
    # The closing message of a process that exits by itself takes 2 s to be written; then it is too late for a third.
    run = launches.start(f"hold; report; sleep 3{end}")
    run.wait_for("ready")
    loss(launches, launches.pod())
    ended = run.ended()
    assert not ended.error
    assert ended.reasons == ["finished"]
    assert ended.records[0]["exit_code"] == (1 if end else 0)


def set_gpus(core: client.CoreV1Api, node: str, count: str | None) -> None:
    core.patch_node_status(node, {"status": {"capacity": {GPU: count}}})


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_pod_that_was_given_up_never_runs_unpaid(launches: Launching, is_gone: bool) -> None:
    timeout_s = 6.0
    run = launches.start("sleep 4; report", profile={"accelerators": 1, "schedule_timeout_s": timeout_s})
    pod = launches.pod()
    node = launches.core.list_node().items[0].metadata.name
    if is_gone:
        wait_until(lambda: is_deleted(launches, pod), 60, f"{pod} is given up")
    else:  # the launcher gives it up at the moment at which it could run: either may be first
        created_at = launches.core.read_namespaced_pod(pod, launches.namespace).metadata.creation_timestamp
        due = created_at + timedelta(seconds=timeout_s)
        wait_until(lambda: datetime.now(UTC) >= due, 60, "the pod may be given up")
    set_gpus(launches.core, node, "1")
    try:
        ended = run.ended()
    finally:
        set_gpus(launches.core, node, None)
    had_node = [
        event for event in launches.core.list_namespaced_event(launches.namespace).items if event.reason == "Scheduled"
    ]
    (record,) = ended.records
    assert bool(had_node) == (record["cost_usd"] > 0), (record, had_node)
    if is_gone:
        assert record["reason"] == "unschedulable"
