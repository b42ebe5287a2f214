"""Forty ways in which a step on several nodes ends, planted on a cluster of three: are the class and the pod right?

By hand, in half an hour: `RECORD_GANG_ENDINGS=FILE pytest tests/cluster/test_gang_endings.py` appends a line each,
and `python -m tests.cluster.gang_endings FILE` writes docs/rows/gangs.md from them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from tests.cluster import names, ways
from tests.cluster.cluster import Cluster, started
from tests.cluster.launching import Launching, Run
from tests.cluster.node import Node
from tests.cluster.requirements import ASSETS, missing
from tests.cluster.test_gangs import pods, start, wait_until_gone
from tests.cluster.waiting import wait_until

RECORD = "RECORD_GANG_ENDINGS"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(RECORD not in os.environ, reason=f"it takes half an hour: by hand, with {RECORD}=FILE"),
]
NODES = 3
GPU = "nvidia.com/gpu"
RUNS = "*:steps 2000 0.2; report"
ENDED_S = 300.0


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three nodes with DNS, whose power and cables are ours."""
    if sentence := missing(os.environ):
        pytest.skip(sentence)
    with started(Path(os.environ[ASSETS]), NODES) as own:
        with own.network():
            names.serve_names(own, tmp_path_factory.mktemp("names"))
        yield own


@dataclass
class Scene:
    """A gang at work, and what can be done to it.

    Attributes:
        undo: what puts the cluster right again once the attempt has ended.
    """

    launches: Launching
    cluster: Cluster
    run: Run
    undo: ExitStack
    planted_s: float = field(default=0.0)

    @property
    def core(self) -> client.CoreV1Api:
        return self.launches.core

    def pod(self, number: int) -> Any:
        return pods(self.launches)[number]

    def node(self, number: int) -> Node:
        """Return the node of a pod."""
        name = self.pod(number).spec.node_name
        return next(node for node in self.cluster.nodes if node.name == name)

    def ready(self) -> None:
        """Wait until the ranks make steps."""
        self.run.wait_for("rank 0: steps")
        time.sleep(2)


Plant = Callable[[Scene], None]


def power_off(number: int) -> Plant:
    def plant(scene: Scene) -> None:
        node = scene.node(number)
        node.power_off()
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


@dataclass(frozen=True)
class Planted:
    """An ending.

    Attributes:
        what: happened, for people.
        right: the classes that are right.
        blamed: the pods that must be named, one of them; empty where it is the whole.
        acts: what the ranks do.
        plant: makes it happen once the ranks make steps; `before` the gang is started.
        profile: what differs in the profile.
    """

    what: str
    right: tuple[str, ...]
    blamed: tuple[int, ...] = ()
    acts: str = RUNS
    plant: Plant | None = None
    before: Plant | None = None
    nodes: int = 2
    profile: dict[str, Any] = field(default_factory=dict)


def code(number: int, words: str, what: str, right: str = "code", nodes: int = 2) -> Planted:
    return Planted(what, (right,), (number,), f"{RUNS}|{number}:steps 20 0.2; {words}", nodes=nodes)


ONE_GPU = {"accelerators": 1, "accelerator_resource": GPU, "processes": 1}
ENDINGS = [
    Planted("the node of pod 0 loses its power", ("node_lost",), (0,), plant=power_off(0)),
    Planted("the node of pod 1 loses its power", ("node_lost",), (1,), plant=power_off(1)),
    Planted("of three, the node of pod 2 loses its power", ("node_lost",), (2,), plant=power_off(2), nodes=3),
    Planted("of four, the node of pod 1 loses its power", ("node_lost",), (1,), plant=power_off(1), nodes=4),
    Planted("the cable of pod 0's node is cut", ("node_lost",), (0,), plant=cut(0)),
    Planted("the cable of pod 1's node is cut", ("node_lost",), (1,), plant=cut(1)),
    Planted("of three, the cable of pod 1's node is cut", ("node_lost",), (1,), plant=cut(1), nodes=3),
    Planted("a drain evicts pod 0", ("evicted",), (0,), plant=evict(0)),
    Planted("a drain evicts pod 1", ("evicted",), (1,), plant=evict(1)),
    Planted("of three, a drain evicts pods 1 and 2", ("evicted",), (1, 2), plant=evict(1, 2), nodes=3),
    Planted("the node of pod 1 gets a NoExecute taint", ("evicted",), (1,), plant=taint(1)),
    Planted("of four, the node of pod 0 gets a NoExecute taint", ("evicted",), (0,), plant=taint(0), nodes=4),
    Planted("somebody deletes pod 0", ("preempted",), (0,), plant=delete(0)),
    Planted("of three, somebody deletes pod 2", ("preempted",), (2,), plant=delete(2), nodes=3),
    Planted("somebody deletes pod 1 without grace", ("preempted",), (1,), plant=delete(1, grace_period_seconds=0)),
    Planted("a pod of higher priority takes pod 1's GPU", ("preempted",), (1,), plant=preempt(1), profile=ONE_GPU),
    Planted("a pod of higher priority takes pod 0's GPU", ("preempted",), (0,), plant=preempt(0), profile=ONE_GPU),
    code(0, "memory", "rank 0 takes more memory than its pod has", "out_of_memory"),
    code(1, "memory", "rank 1 takes more memory than its pod has", "out_of_memory"),
    code(2, "memory", "of three, rank 2 takes more memory than its pod has", "out_of_memory", 3),
    code(1, "shm", "/dev/shm of pod 1 is full", "out_of_shm"),
    code(0, "shm", "/dev/shm of pod 0 is full", "out_of_shm"),
    code(0, "raise no such column: price", "rank 0 raises"),
    code(1, "raise no such column: price", "rank 1 raises"),
    code(3, "raise no such column: price", "of four, rank 3 raises", "code", 4),
    code(1, "exit 3", "rank 1 exits with 3"),
    Planted("the loss is NaN, in all ranks", ("code",), (0, 1), "*:steps 20 0.2; raise the loss is nan in step 20"),
    code(1, "signal 9", "SIGKILL to rank 1", "killed"),
    Planted("SIGKILL to the agent of pod 0", ("killed",), (0,), plant=kill(0, signal.SIGKILL)),
    code(1, "idle", "rank 1 does nothing any more", "hung"),
    code(0, "idle", "rank 0 does nothing any more", "hung"),
    Planted("SIGSTOP to all processes of pod 1", ("hung",), (), plant=stop_ranks(1)),
    Planted("pod 1 is cut off from pod 0, and from nothing else", ("hung", "peers_lost"), (), plant=part(1)),
    Planted("of three, pod 2 is cut off from the others", ("hung", "peers_lost"), (), plant=part(2), nodes=3),
    Planted(
        "the API is away for 40 s, and rank 1 raises meanwhile",
        ("code",),
        (1,),
        "*:steps 2000 0.2|1:steps 50 0.2; wait go; raise no such column: price",
        plant=then(put("go"), api_away(40)),
    ),
    Planted("the API is away for 20 s, and nothing else", ("finished",), (), "*:steps 200 0.2; report", api_away(20)),
    Planted(
        "the kubelet of pod 1's node stands still, and the step goes on",
        ("finished",),
        (),
        "*:steps 300 0.2; report",
        then(stop_kubelet(1)),
    ),
    Planted("a quota allows one pod of two", ("admission",), (), before=quota(pods="1")),
    Planted(
        "an admission policy forbids the service's pods: a quota of no pods", ("admission",), (), before=quota(pods="0")
    ),
    Planted("three pods want a GPU each, and two nodes have one", ("incomplete",), (), nodes=4, profile=ONE_GPU),
]


@pytest.fixture
def gpus(reachable: Cluster) -> None:
    """A GPU on each node, as its plugin would count it."""
    patch = [
        {"op": "add", "path": f"/status/{kind}/nvidia.com~1gpu", "value": "1"} for kind in ("capacity", "allocatable")
    ]
    for node in reachable.nodes:
        reachable.core.patch_node_status(node.name, patch)


@contextmanager
def scene(launches: Launching, cluster: Cluster, planted: Planted) -> Iterator[Scene]:
    with ExitStack() as undo:
        made = Scene(launches, cluster, None, undo)  # type: ignore[arg-type]  # the run comes next
        if planted.before is not None:
            planted.before(made)
        short = {"schedule_timeout_s": 45.0, "start_timeout_s": 181.0} | planted.profile
        made.run = start(launches, planted.acts, "*:report", profile={"nodes": planted.nodes} | short)
        yield made


@pytest.mark.parametrize("planted", ENDINGS, ids=lambda planted: planted.what)
def test_the_first_cause_is_named(planted: Planted, launches: Launching, cluster: Cluster, gpus: None) -> None:
    with scene(launches, cluster, planted) as made:
        if planted.plant is not None:
            made.ready()
            planted_s = time.monotonic()
            planted.plant(made)
        else:
            planted_s = time.monotonic()
        wait_until(lambda: bool(launches.steps.records()) and _first(launches) is not None, ENDED_S, "an attempt ended")
        took_s = time.monotonic() - planted_s
    record = _first(launches)
    assert record is not None
    if made.run.process.poll() is None and planted.right != ("finished",):
        made.run.process.send_signal(signal.SIGINT)
    ended = made.run.ended()
    wait_until_gone(launches)
    reason, named = (
        record["reason"],
        [number for number in range(planted.nodes) if f"pod {number} on" in record["said"]],
    )
    is_right = reason in planted.right and (not planted.blamed or bool(set(planted.blamed) & set(named)))
    line = {
        "what": planted.what,
        "right": planted.right,
        "reason": reason,
        "said": record["said"],
        "took_s": round(took_s),
        "is_right": is_right,
    }
    with Path(os.environ[RECORD]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    assert is_right, (record["said"], ended.lines[-20:])


def _first(launches: Launching) -> Any:
    """Return the first attempt that has ended."""
    return next((record for record in launches.steps.records() if record["reason"] != "under_way"), None)
