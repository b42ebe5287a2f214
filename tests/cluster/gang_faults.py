"""What can be done to a step on several nodes: power, cables, evictions, deletions, signals, quotas, the API."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from platform_assets.kubernetes.api import ATTEMPT
from tests.cluster import ways
from tests.cluster.cluster import Cluster
from tests.cluster.containers import Container, Recorder
from tests.cluster.launching import Launching, Run
from tests.cluster.node import Node
from tests.cluster.test_gangs import pods
from tests.cluster.waiting import wait_until

GPU = "nvidia.com/gpu"
GONE_S = 60.0


@dataclass
class Scene:
    """A gang at work, and what can be done to it.

    Attributes:
        undo: what puts the cluster right again once the attempt has ended.
        run: the one that waits for it.
        recorders: of the nodes that have power.
        containers: of nodes that have lost it.
    """

    launches: Launching
    cluster: Cluster
    undo: ExitStack
    recorders: dict[str, Recorder]
    run: Run = field(init=False)
    containers: list[Container] = field(default_factory=list)

    @property
    def core(self) -> client.CoreV1Api:
        return self.launches.core

    def pod(self, number: int) -> Any:
        return pods(self.launches)[number]

    def node(self, number: int) -> Node:
        """Return the node of a pod."""
        name = self.pod(number).spec.node_name
        return next(node for node in self.cluster.nodes if node.name == name)

    def power_off(self, node: Node) -> None:
        node.power_off()
        self.containers += self.recorders.pop(node.name).close()

    def node_s(self, attempt: str) -> float:
        """Return how long the containers of an attempt ran, by the nodes' own record, in seconds; call it once."""

        def of_attempt() -> list[Container]:
            lively = [item for recorder in self.recorders.values() for item in list(recorder.containers.values())]
            return [item for item in self.containers + lively if item.labels[ATTEMPT] == attempt]

        wait_until(lambda: all(item.ended_at for item in of_attempt()), GONE_S, "the containers have ended")
        spans = ((item.ended_at - item.started_at).total_seconds() for item in of_attempt() if item.ended_at)
        return sum(spans)

    def ready(self) -> None:
        """Wait until the ranks make steps."""
        self.run.wait_for("rank 0: steps")
        time.sleep(2)


Plant = Callable[[Scene], None]


def power_off(number: int) -> Plant:
    def plant(scene: Scene) -> None:
        node = scene.node(number)
        scene.power_off(node)
        scene.undo.callback(scene.cluster.wait_for_node, node.name)
        scene.undo.callback(node.power_on)

    return plant


def cut(number: int) -> Plant:
    def plant(scene: Scene) -> None:
        node = scene.node(number)
        node.cable.cut()
        scene.undo.callback(scene.cluster.wait_for_node, node.name)
        scene.undo.callback(node.cable.plug)

    return plant


def evict(*numbers: int) -> Plant:
    def plant(scene: Scene) -> None:
        for number in numbers:
            ways.evict(scene.core, scene.pod(number).metadata.name, scene.launches.namespace)

    return plant


def taint(number: int) -> Plant:
    def plant(scene: Scene) -> None:
        name = scene.node(number).name
        out = [{"key": "maintenance", "effect": "NoExecute"}]
        scene.core.patch_node(name, {"spec": {"taints": out}})
        scene.undo.callback(scene.core.patch_node, name, {"spec": {"taints": None}})

    return plant


def delete(number: int, **options: int) -> Plant:
    def plant(scene: Scene) -> None:
        name = scene.pod(number).metadata.name
        scene.core.delete_namespaced_pod(name, scene.launches.namespace, **options)

    return plant


def kill(number: int, signal_: int) -> Plant:
    def plant(scene: Scene) -> None:
        pod = scene.pod(number)
        node = next(node for node in scene.cluster.nodes if node.name == pod.spec.node_name)
        node.kill_container(ways.container_of(pod), signal_)

    return plant


def stop_ranks(number: int) -> Plant:
    """Let every process of a pod stand still, its agent too."""

    def plant(scene: Scene) -> None:
        pod = scene.pod(number)
        node = next(node for node in scene.cluster.nodes if node.name == pod.spec.node_name)
        pids = node.running.run("ctr", "--namespace=k8s.io", "tasks", "ps", ways.container_of(pod)).splitlines()[1:]
        for line in pids:
            node.running.run("kill", f"-{int(signal.SIGSTOP)}", line.split()[0])

    return plant


def part(number: int) -> Plant:
    """Cut a pod off from the others of its gang, and from nothing else."""

    def plant(scene: Scene) -> None:
        every = pods(scene.launches)
        node, own = scene.node(number), every[number].status.pod_ip
        for other in (pod.status.pod_ip for place, pod in every.items() if place != number):
            for source, target in ((own, other), (other, own)):
                rule = ("FORWARD", "-s", source, "-d", target, "-j", "DROP")
                node.running.run("iptables", "-I", *rule)
                scene.undo.callback(node.running.run, "iptables", "-D", *rule)

    return plant


def stop_kubelet(number: int) -> Plant:
    def plant(scene: Scene) -> None:
        node = scene.node(number)
        node.send("kubelet", signal.SIGSTOP)
        scene.undo.callback(scene.cluster.wait_for_node, node.name)
        scene.undo.callback(node.send, "kubelet", signal.SIGCONT)

    return plant


def then(*plants: Plant) -> Plant:
    def plant(scene: Scene) -> None:
        for item in plants:
            item(scene)

    return plant


def put(name: str) -> Plant:
    return lambda scene: scene.launches.put(name)


def api_away(seconds: float) -> Plant:
    def plant(scene: Scene) -> None:
        control = scene.cluster.control
        assert control is not None
        next(item for item in reversed(control.space.services) if item.name == "kube-apiserver").kill()
        time.sleep(seconds)
        control.start_api_server()

    return plant


def no_image() -> Plant:
    """Let the last node forget the step's image, and have no way to its registry."""

    def plant(scene: Scene) -> None:
        node, image = scene.cluster.nodes[-1], str(scene.launches.steps.settings.trainer_image)
        digest = image.rpartition("@")[2]
        names = node.running.run("ctr", "--namespace=k8s.io", "images", "list").splitlines()
        for name in (line.split()[0] for line in names if digest in line):
            node.running.run("ctr", "--namespace=k8s.io", "images", "remove", "--sync", name)
        host, _, port = scene.cluster.registry.address.partition(":")
        rule = ("OUTPUT", "-p", "tcp", "-d", host, "--dport", port, "-j", "REJECT")
        node.running.run("iptables", "-I", *rule)
        scene.undo.callback(node.running.run, "iptables", "-D", *rule)

    return plant


def quota(**hard: str) -> Plant:
    def plant(scene: Scene) -> None:
        body = {"metadata": {"name": "few"}, "spec": {"hard": {key.replace("_", "."): hard[key] for key in hard}}}
        scene.core.create_namespaced_resource_quota(scene.launches.namespace, body)

    return plant


def preempt(number: int) -> Plant:
    """Let a pod of higher priority need the GPU of one of the gang's."""

    def plant(scene: Scene) -> None:
        api, name = client.SchedulingV1Api(scene.core.api_client), scene.launches.namespace
        api.create_priority_class({"metadata": {"name": name}, "value": 1000})
        scene.undo.callback(api.delete_priority_class, name)
        pod = {
            "metadata": {"name": "urgent"},
            "spec": {
                "priorityClassName": name,
                "nodeName": None,
                "nodeSelector": {"kubernetes.io/hostname": scene.node(number).name},
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "main",
                        "image": scene.launches.steps.settings.trainer_image,
                        "command": ["sleep", "1000"],
                        "resources": {"limits": {GPU: "1"}},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
        scene.core.create_namespaced_pod(scene.launches.namespace, pod)

    return plant
