"""Where the scheduler puts a service's replicas: on different nodes, also where nodes name no zone."""

from pathlib import Path

import pytest
from kubernetes import client

from tests.cluster.pods import Pods, manifest
from tests.cluster.waiting import wait_until
from tests.test_manifests import documents

PATIENCE_S, ROUNDS = 120.0, 3
WAITS = "trap 'exit 0' TERM; while :; do sleep .1; done"


def test_two_replicas_are_on_two_nodes_although_one_has_more_room(
    core: client.CoreV1Api, pods: Pods, shell: str, tmp_path: Path
) -> None:
    first, second, *_ = core.list_node().items
    if any("topology.kubernetes.io/zone" in node.metadata.labels for node in (first, second)):
        pytest.skip("the nodes of this cluster name zones")
    busy = manifest("busy", shell, WAITS, nodeName=second.metadata.name)
    busy["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "500m"
    pods.create(busy)
    pods.wait_until_running("busy")

    template = documents(tmp_path, replicas=2)["Deployment"]["spec"]["template"]
    spread = {name: template["spec"].get(name) for name in ("affinity", "topologySpreadConstraints")}
    labels = template["metadata"]["labels"]
    spec = manifest("replica", shell, WAITS, **spread)["spec"] | {"restartPolicy": "Always"}
    apps = client.AppsV1Api(core.api_client)
    for number in range(ROUNDS):
        body = {
            "metadata": {"name": f"replicas-{number}"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
        apps.create_namespaced_deployment(pods.namespace, body)

        def replicas() -> list[str]:
            items = core.list_namespaced_pod(pods.namespace, label_selector="driftline/product").items
            return sorted(pod.spec.node_name for pod in items if pod.status.phase == "Running")

        wait_until(lambda: len(replicas()) == 2, PATIENCE_S, "two replicas run")
        assert replicas() == sorted([first.metadata.name, second.metadata.name])
        apps.delete_namespaced_deployment(f"replicas-{number}", pods.namespace, propagation_policy="Foreground")
        wait_until(lambda: not replicas(), PATIENCE_S, "they are gone")
