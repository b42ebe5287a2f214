"""Pods on real kubelets: how they end, and what refuses them."""

import pytest
from kubernetes import client

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
