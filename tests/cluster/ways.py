"""Ways to end a pod from outside, as somebody with rights in the namespace, or with root on its node."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kubernetes import client

from tests.cluster.node import Node

MB = 1_000_000
PRESSURE = {
    "evictionSoft": {"memory.available": "99%"},
    "evictionSoftGracePeriod": {"memory.available": "1s"},
    "evictionMaxPodGracePeriod": 30,
    "evictionPressureTransitionPeriod": "1s",
}
"""More memory than is ever free. Soft: a kubelet subtracts a hard threshold from what its node offers to pods."""


def container_of(pod: Any) -> str:
    """Return the id of a pod's only container, as containerd knows it."""
    return str(pod.status.container_statuses[0].container_id.rpartition("/")[2])


def evict(api: client.CoreV1Api, name: str, namespace: str) -> None:
    """Ask the API to evict a pod, as a drain does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    api.create_namespaced_pod_eviction(name, namespace, body)


def use_up_memory(node: Node, pod: Any) -> None:
    """Have a pod need more memory than it may: the kernel kills its largest process."""
    container = container_of(pod)
    node.limit_memory(container, more=8 * MB)
    fill = ["dd", "if=/dev/zero", "of=/dev/shm/full", "bs=1M", "count=16"]
    with suppress(RuntimeError):  # it dies with the container
        node.running.run("ctr", "--namespace=k8s.io", "tasks", "exec", "--exec-id=fill", container, *fill)


@contextmanager
def short_of_memory(node: Node) -> Iterator[None]:
    """Have a node's kubelet evict pods for the node's memory as long as the context lasts."""
    node.settings.update(PRESSURE)
    _restart_kubelet(node)
    try:
        yield
    finally:
        for name in PRESSURE:
            del node.settings[name]
        _restart_kubelet(node)


def _restart_kubelet(node: Node) -> None:
    node.kill("kubelet")
    node.start_kubelet()
