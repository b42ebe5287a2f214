"""What a cluster notices of its nodes: cut cables, lost power, drains."""

from __future__ import annotations

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.node import Node
from tests.cluster.pods import Pods, manifest


@pytest.fixture
def victim(machines: list[Node], reachable: Cluster) -> Node:
    """The last node, which is Ready and is repaired in the test."""
    reachable.wait_for_node(machines[-1].name)
    return machines[-1]


def test_a_node_with_a_cut_cable_is_not_ready_until_it_is_plugged_again(
    reachable: Cluster, victim: Node, pods: Pods, shell: str
) -> None:
    pods.create(_pod_on(victim, shell))
    before = pods.wait_until_running("step").status.container_statuses[0]
    victim.cable.cut()
    try:
        reachable.wait_for_node(victim.name, is_ready=False)
    finally:
        victim.cable.plug()
    reachable.wait_for_node(victim.name)
    after = pods.wait_until_running("step").status.container_statuses[0]
    assert (after.container_id, after.restart_count) == (before.container_id, 0)


def test_a_node_without_power_is_not_ready_and_its_pods_are_lost(
    reachable: Cluster, victim: Node, pods: Pods, shell: str
) -> None:
    pods.create(_pod_on(victim, shell))
    pods.wait_until_running("step")
    victim.power_off()
    try:
        reachable.wait_for_node(victim.name, is_ready=False)
        assert pods.read("step").status.phase == "Running", "nobody has told the API otherwise"
    finally:
        victim.power_on()
    reachable.wait_for_node(victim.name)
    end = pods.wait_for_end("step")
    assert end.exit_code != 0
    pods.create(_pod_on(victim, shell, name="next", script="exit 0"))
    assert pods.wait_for_end("next").exit_code == 0


def test_a_kubelet_that_was_killed_finds_its_pods(reachable: Cluster, victim: Node, pods: Pods, shell: str) -> None:
    pods.create(_pod_on(victim, shell, script="sleep 5; exit 4"))
    before = pods.wait_until_running("step").status.container_statuses[0]
    victim.kill("kubelet")
    victim.start_kubelet()
    assert pods.wait_for_end("step").exit_code == 4
    assert pods.read("step").status.container_statuses[0].container_id == before.container_id
    reachable.wait_for_node(victim.name)


def test_a_drained_node_runs_no_pod_until_it_is_uncordoned(reachable: Cluster, pods: Pods, shell: str) -> None:
    pods.create(manifest("step", shell, "sleep 1000"))
    node = pods.wait_until_running("step").spec.node_name
    # Pods of others stay where they are, if the cluster is not ours.
    reachable.kubectl("drain", node, "--force", "--ignore-daemonsets", "--pod-selector=app=step", "--timeout=60s")
    try:
        pods.wait_until_gone("step")
        pods.create(manifest("next", shell, "exit 0", nodeSelector={"kubernetes.io/hostname": node}))
        scheduled = pods.wait_for_condition("next", "PodScheduled", "False")
        assert scheduled.reason == "Unschedulable"
    finally:
        reachable.kubectl("uncordon", node)
    assert pods.wait_for_end("next").exit_code == 0


def _pod_on(node: Node, image: str, name: str = "step", script: str = "sleep 1000") -> dict[str, object]:
    return manifest(name, image, script, nodeSelector={"kubernetes.io/hostname": node.name})
