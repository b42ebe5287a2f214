"""Pods on real kubelets: how they end, and what refuses them."""

from __future__ import annotations

import pytest
from kubernetes import client

from tests.cluster.cluster import Cluster
from tests.cluster.node import conditions_of
from tests.cluster.pods import Pods, manifest


def test_every_node_is_ready(core: client.CoreV1Api) -> None:
    nodes = core.list_node().items
    assert nodes
    assert {node.metadata.name: conditions_of(node)["Ready"] for node in nodes} == {
        node.metadata.name: "True" for node in nodes
    }


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_of_a_restricted_pod_is_read(pods: Pods, shell: str, code: int) -> None:
    pods.create(manifest("step", shell, f"echo to the log; exit {code}"))
    end = pods.wait_for_end("step")
    assert (end.exit_code, end.reason) == (code, "Error" if code else "Completed")
    assert pods.log("step") == "to the log\n"
    assert pods.read("step").status.container_statuses[0].image_id.endswith(shell.partition("@")[2])


def test_pod_security_refuses_a_privileged_pod(pods: Pods, shell: str) -> None:
    pod = manifest("step", shell, "exit 0")
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(client.ApiException, match="violates PodSecurity") as refusal:
        pods.create(pod)
    assert refusal.value.status == 403


def test_an_unknown_digest_cannot_be_pulled(pods: Pods, shell: str) -> None:
    name = shell.partition("@")[0]
    pods.create(manifest("step", f"{name}@sha256:{'0' * 64}", "exit 0"))
    waiting = pods.wait_for_reason("step", "ErrImagePull")
    assert "not found" in waiting.message


def test_a_container_over_its_memory_limit_is_killed(pods: Pods, shell: str) -> None:
    pods.create(manifest("step", shell, "tail /dev/zero", memory="32Mi"))
    end = pods.wait_for_end("step")
    assert (end.exit_code, end.reason) == (137, "OOMKilled")


def test_a_deleted_pod_can_end_in_its_own_way_within_its_grace_period(pods: Pods, shell: str) -> None:
    loop = "trap 'exit 3' TERM; while :; do sleep .1; done"
    pods.create(manifest("step", shell, loop, terminationGracePeriodSeconds=20))
    pods.wait_until_running("step")
    pods.api.delete_namespaced_pod("step", pods.namespace)
    # The final status is visible for about a second before the pod is gone.
    assert [end.exit_code for end in pods.ends_until_deleted("step")] == [3]


def test_the_registry_serves_what_was_pushed_by_the_same_digest(reachable: Cluster, shell: str) -> None:
    assert shell.startswith(f"{reachable.registry.address}/shell@sha256:")
