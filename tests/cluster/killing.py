"""End the pods of a training in ten ways, each once the training has come further than what it went on from."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from platform_assets.base import naming
from platform_assets.kubernetes.manifest import FACTS
from platform_assets.store.ledgers import Ledgers
from tests.cluster.cluster import Cluster
from tests.cluster.node import Node
from tests.cluster.opened import SECRET
from tests.cluster.pods import manifest
from tests.cluster.step_runs import StepRuns
from tests.cluster.waiting import wait_until
from tests.cluster.ways import container_of, evict, short_of_memory, use_up_memory
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC

PATIENCE_S = 300.0
TAINT = "driftline/test"


@dataclass
class Killer:
    """Ends the pods of one training, each once it has come further than what it went on from.

    Attributes:
        hit: the progress of each training when its pod was ended.
    """

    runs: StepRuns
    cluster: Cluster
    machines: dict[str, Node]
    priority: str
    hit: list[Mapping[str, Any]] = field(default_factory=list)

    def end_all(self, ways: Sequence[str]) -> None:
        """End the training in these ways, one after another; the one after the last is fast."""
        for number, way in enumerate(ways, start=1):
            self.end_next(way, is_last=number == len(ways))

    def end_next(self, way: str, *, is_last: bool) -> None:
        """Wait for a training that has got further, and end it."""
        found: list[tuple[Any, Mapping[str, Any]]] = []

        def is_at_work() -> bool:
            found[:] = list(self._at_work())
            return bool(found)

        wait_until(is_at_work, PATIENCE_S, f"a training is at work, to be ended: {way}", self._described)
        pod, progress = found[0]
        self.hit.append(progress)
        if is_last:
            set_slow(self.runs, "/nowhere")
        WAYS[way](self, pod)

    def _described(self) -> str:
        pods = self.runs.pods.api.list_namespaced_pod(self.runs.pods.namespace).items
        return "\n".join(self.runs.pods.describe(pod.metadata.name) for pod in pods)

    def _at_work(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        ledgers, hit = Ledgers(self.runs.settings.root, SPEC.name), {item["id"] for item in self.hit}
        api, namespace = self.runs.pods.api, self.runs.pods.namespace
        for pod in api.list_namespaced_pod(namespace, label_selector="driftline/step=train").items:
            facts = json.loads(pod.metadata.annotations[FACTS])
            ledger = f"{naming.LEASES}/{facts['fingerprint']}"
            progress = ledgers.read(ledger, f"{ledgers.newest_number(ledger)}.progress") or {}
            is_further = progress.get("steps_done", 0) > progress.get("resumed_from_step", 0)
            if pod.status.phase == "Running" and progress.get("id") == facts["id"] not in hit and is_further:
                yield pod, progress

    def delete(self, pod: Any, **more: Any) -> None:
        self.runs.pods.api.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, **more)

    def taint(self, pod: Any) -> None:
        self.cluster.kubectl("taint", "node", pod.spec.node_name, f"{TAINT}=:NoExecute")
        self.runs.pods.wait_until_gone(pod.metadata.name)
        self.cluster.kubectl("taint", "node", pod.spec.node_name, f"{TAINT}:NoExecute-")

    def preempt(self, pod: Any) -> None:
        """Let a pod of higher priority need the node's processors."""
        other = manifest("urgent", self.runs.settings.trainer_image or "", "", priorityClassName=self.priority)
        container = other["spec"]["containers"][0]
        container["command"], container["args"] = ["python", "-c", "pass"], []
        container["resources"] = {"requests": {"cpu": "1500m"}}
        other["spec"]["nodeSelector"] = {"kubernetes.io/hostname": pod.spec.node_name}
        self.runs.pods.create(other)
        self.runs.pods.wait_for_end("urgent")
        self.runs.pods.api.delete_namespaced_pod("urgent", self.runs.pods.namespace)

    def signal(self, pod: Any, number: int) -> None:
        self.machines[pod.spec.node_name].kill_container(container_of(pod), number)

    def press(self, pod: Any) -> None:
        """Have the pod's node run short of memory."""
        node = self.machines[pod.spec.node_name]
        with short_of_memory(node):
            self.runs.pods.wait_until_gone(pod.metadata.name)
        self.cluster.wait_for_node(node.name)

    def cut_power(self, pod: Any) -> None:
        node = self.machines[pod.spec.node_name]
        node.power_off()
        self.runs.pods.wait_until_gone(pod.metadata.name)
        node.power_on()
        self.cluster.wait_for_node(node.name)


WAYS: dict[str, Callable[[Killer, Any], None]] = {
    "deleted": lambda killer, pod: killer.delete(pod),
    "evicted by the API, as a drain does": lambda killer, pod: evict(
        killer.runs.pods.api, pod.metadata.name, pod.metadata.namespace
    ),
    "tainted": lambda killer, pod: killer.taint(pod),
    "preempted by priority": lambda killer, pod: killer.preempt(pod),
    "out of memory": lambda killer, pod: use_up_memory(killer.machines[pod.spec.node_name], pod),
    "SIGTERM": lambda killer, pod: killer.signal(pod, signal.SIGTERM),
    "SIGKILL": lambda killer, pod: killer.signal(pod, signal.SIGKILL),
    "deleted without grace": lambda killer, pod: killer.delete(pod, grace_period_seconds=0),
    "node pressure": lambda killer, pod: killer.press(pod),
    "power cut": lambda killer, pod: killer.cut_power(pod),
}
"""Ways in which a pod is ended."""


def set_slow(runs: StepRuns, path: str) -> None:
    """Have the next pods train slowly, if a path of theirs exists."""
    secret = {"stringData": {slow_batches.SLOW_WHILE: path}}
    runs.pods.api.patch_namespaced_secret(SECRET, runs.pods.namespace, secret)
