"""Choose at random what goes wrong next on the cluster, and do it: the killer of row Q4."""

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from kubernetes import client

from proof.chaos.q4_lanes import IN_ORDERS, Lane, Lanes
from tests.cluster.containers import Container, Recorder
from tests.cluster.node import Node
from tests.cluster.opened import Opened
from tests.cluster.step_runs import StepRuns
from tests.cluster.ways import container_of, evict, use_up_memory

LABEL = "driftline/attempt"
FAULTS = {
    "deleted": 15,
    "evicted by the API": 14,
    "SIGTERM": 10,
    "SIGKILL": 10,
    "out of memory": 9,
    "deleted without grace": 10,
    "node without power": 3,
    "own error": 8,
    "image": 3,
    "unschedulable": 3,
    "run cancelled": 5,
    "launcher killed": 6,
    "launcher killed, pod deleted": 4,
    "launcher killed, pod gone": 4,
}
"""How often each; in all more than 100."""
UNSEEN = ("launcher killed, pod deleted", "launcher killed, pod gone")
"""Nobody asks the API between such an end and the pod's removal."""


class Killer:
    """Inflicts every fault of `FAULTS`, in an order that the seed decides.

    Attributes:
        inflicted: how often each one hit.
        causes: of the attempts that were hit.
        containers: of nodes that lost power since.
    """

    def __init__(self, place: Opened, runs: StepRuns, lanes: Lanes, seed: int) -> None:
        self._place, self._runs, self._lanes = place, runs, lanes
        self._random = random.Random(seed)
        self._left = [name for name, count in FAULTS.items() for _ in range(count)]
        self._random.shuffle(self._left)
        self._nodes = {node.name: node for node in place.cluster.nodes}
        self._recorders = {name: Recorder(node, LABEL) for name, node in self._nodes.items()}
        self.inflicted: Counter[str] = Counter()
        self.causes: dict[str, str] = {}
        self.containers: list[Container] = []

    @property
    def is_done(self) -> bool:
        return not self._left

    def strike(self) -> None:
        """Inflict the next fault, if there is a step that it can hit."""
        fault = self._left[-1]
        if fault in IN_ORDERS:
            self._lanes.faults.append(fault)
            has_hit = True
        else:
            has_hit = self._hit_one(fault)
        if has_hit:
            self._left.pop()
            self.inflicted[fault] += 1
        else:
            self._random.shuffle(self._left)

    def close(self) -> list[Container]:
        """Return all containers that there were."""
        return [*self.containers, *(item for recorder in self._recorders.values() for item in recorder.close())]

    def _hit_one(self, fault: str) -> bool:
        lanes = {lane.launch.fingerprint[:40]: lane for lane in self._lanes.lanes if lane.is_watching}
        pods = self._runs.pods.api.list_namespaced_pod(self._runs.pods.namespace).items
        running = [
            pod
            for pod in pods
            if _is_at_work(pod)
            and pod.metadata.labels[LABEL] not in self.causes
            and pod.metadata.labels["driftline/fingerprint"] in lanes
        ]
        if not running:
            return False
        pod = self._random.choice(running)
        try:
            self._hit(fault, pod, lanes[pod.metadata.labels["driftline/fingerprint"]])
        except (client.ApiException, StopIteration, RuntimeError, ValueError):
            return False  # it ended just now
        if fault != "launcher killed":
            self.causes.setdefault(pod.metadata.labels[LABEL], fault)
        return True

    def _hit(self, fault: str, pod: Any, lane: Lane) -> None:
        if fault.startswith("launcher killed"):
            lane.kill()
        acts: dict[str, Callable[[], object]] = {
            "deleted": lambda: self._delete(pod),
            "evicted by the API": lambda: evict(self._runs.pods.api, pod.metadata.name, pod.metadata.namespace),
            "SIGTERM": lambda: self._node(pod).kill_container(container_of(pod), signal.SIGTERM),
            "SIGKILL": lambda: self._node(pod).kill_container(container_of(pod), signal.SIGKILL),
            "out of memory": lambda: use_up_memory(self._node(pod), pod),
            "deleted without grace": lambda: self._delete(pod, grace_period_seconds=0),
            "node without power": lambda: self._cut_power(pod),
            "own error": lambda: lane.marks.touch("fail"),
            "run cancelled": lambda: lane.signal(signal.SIGINT),
            "launcher killed": lambda: None,
            "launcher killed, pod deleted": lambda: self._delete(pod),
            "launcher killed, pod gone": lambda: self._delete(pod, grace_period_seconds=0),
        }
        acts[fault]()

    def _node(self, pod: Any) -> Node:
        return self._nodes[pod.spec.node_name]

    def _delete(self, pod: Any, **more: Any) -> None:
        self._runs.pods.api.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, **more)

    def _cut_power(self, pod: Any) -> None:
        """Switch the pod's node off, and on again once its pods are given up."""
        node = self._node(pod)
        node.power_off()
        lost = self._recorders.pop(node.name).close()
        self.containers += lost
        for container in lost:
            if container.code is None:  # what was done to it before had not ended it
                self.causes[container.labels[LABEL]] = "node without power"
        threading.Timer(90.0, self._switch_on, args=(node,)).start()

    def _switch_on(self, node: Node) -> None:
        with self._place.cluster.network():
            node.power_on()
        self._recorders[node.name] = Recorder(node, LABEL)


def _is_at_work(pod: Any) -> bool:
    states = [status.state for status in pod.status.container_statuses or []]
    return pod.metadata.deletion_timestamp is None and any(state.running for state in states)
