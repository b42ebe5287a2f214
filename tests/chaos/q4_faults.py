"""Choose at random what goes wrong next on the double of a cluster, and do it: the killer of row Q4.

Belongs here: which faults there are, and what each one hits. Does not belong here: launchers (`q4_lanes`), or what the
ledger must say afterwards (`q4`).
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.q4_lanes import IN_ORDERS, Lane, Lanes
from tests.doubles.cluster.cluster import Cluster
from tests.doubles.cluster.controllers import Node
from tests.doubles.cluster.statuses import ENDED

SPOT = {"driftline/spot": "true"}
FAULTS = {
    "spot node shut down": 12,
    "preempted by the scheduler": 8,
    "drained": 7,
    "evicted": 8,
    "evicted, no reason": 8,
    "out of memory": 7,
    "SIGKILL": 8,
    "vanished": 8,
    "node lost": 5,
    "refused by the kubelet": 5,
    "over quota": 4,
    "own error": 6,
    "image": 3,
    "unschedulable": 3,
    "run cancelled": 4,
    "launcher killed": 5,
    "launcher killed, pod evicted": 3,
    "launcher killed, pod drained": 3,
    "launcher killed, pod vanished": 3,
}
"""How often each; in all more than 100."""
UNSEEN = ("launcher killed, pod drained", "launcher killed, pod vanished")
"""Nobody asks the API between such an end and the pod's removal."""
Pod = Mapping[str, Any]


class Killer:
    """Inflicts every fault of `FAULTS`, in an order that the seed decides.

    Attributes:
        inflicted: how often each one hit.
        unseen: attempts whose end may have been shown to nobody.
    """

    def __init__(self, cluster: Cluster, lanes: Lanes, folder: Path, seed: int) -> None:
        self._cluster, self._lanes, self._folder = cluster, lanes, folder
        self._random = random.Random(seed)
        self._left = [name for name, count in FAULTS.items() for _ in range(count)]
        self._random.shuffle(self._left)
        self._nodes = 0
        self.inflicted: Counter[str] = Counter()
        self.unseen: set[str] = set()
        self._ended: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to inflict."""
        return not self._left

    def strike(self) -> None:
        """Inflict the next fault on a pod that runs, if there is one for it; one that hits nothing stays to be done."""
        fault = self._left[-1]
        if fault in IN_ORDERS or fault in ("refused by the kubelet", "over quota"):
            self._plan(fault)
            has_hit = True
        else:
            running = self._cluster.pods("", "status.phase=Running")
            # What is ending already has its cause in the journal; a second one would hide behind it.
            running = [pod for pod in running if _attempt(pod) not in self._ended]
            if "drained" in fault:
                running = [pod for pod in running if pod["metadata"]["labels"]["driftline/spot"] == "true"]
            lanes = {lane.launch.fingerprint[:40]: lane for lane in self._lanes.lanes if lane.is_watching}
            running = [pod for pod in running if pod["metadata"]["labels"]["driftline/fingerprint"] in lanes]
            if not running:
                return
            pod = self._random.choice(running)
            has_hit = self._hit(fault, pod, lanes[pod["metadata"]["labels"]["driftline/fingerprint"]])
            if fault in UNSEEN:
                self.unseen.add(_attempt(pod))
            if fault != "launcher killed":
                self._ended.add(_attempt(pod))
        if has_hit:
            self._left.pop()
            self.inflicted[fault] += 1
        else:
            self._random.shuffle(self._left)

    def _plan(self, fault: str) -> None:
        """Let the next pod or order fail."""
        if fault == "refused by the kubelet":
            self._cluster.refuse_admission()
        elif fault == "over quota":
            self._cluster.refuse_creation()
        else:
            self._lanes.faults.append(fault)

    def _hit(self, fault: str, pod: Pod, lane: Lane) -> bool:
        cluster, name = self._cluster, str(pod["metadata"]["name"])
        if fault.startswith("launcher killed"):
            lane.kill()
        acts: dict[str, Callable[[], bool]] = {
            "spot node shut down": lambda: cluster.preempt(name),
            "preempted by the scheduler": lambda: cluster.preempt(name, by="scheduler"),
            "drained": lambda: cluster.preempt(name, by="drain"),
            "evicted": lambda: cluster.evict(name),
            "evicted, no reason": lambda: cluster.evict(name, with_reason=False),
            "out of memory": lambda: cluster.out_of_memory(name),
            "SIGKILL": lambda: cluster.kill(name),
            "vanished": lambda: cluster.vanish(name),
            "node lost": lambda: self._lose(pod),
            "own error": lambda: _touch(lane.folder / "fail"),
            "run cancelled": lambda: lane.signal(signal.SIGINT),
            "launcher killed": lambda: True,
            "launcher killed, pod evicted": lambda: cluster.evict(name),
            "launcher killed, pod drained": lambda: cluster.preempt(name, by="drain"),
            "launcher killed, pod vanished": lambda: cluster.vanish(name),
        }
        return acts[fault]()

    def _lose(self, pod: Pod) -> bool:
        """Lose the pod's node, and let another come."""
        there = self._cluster.pods("", f"spec.nodeName={pod['spec']['nodeName']}")
        self._ended |= {_attempt(item) for item in there}
        self.unseen |= {_attempt(item) for item in there if item["status"]["phase"] in ENDED}
        self._cluster.lose_node(pod["spec"]["nodeName"])
        self._nodes += 1
        is_spot = pod["metadata"]["labels"]["driftline/spot"] == "true"
        later = node(f"later-{self._nodes}", is_spot=is_spot)
        self._cluster.store.add("nodes", later.shown(self._cluster.store.stamp()))
        return True


def node(name: str, *, is_spot: bool) -> Node:
    """Return a node for two pods; steps on demand land on spot nodes only where those are not tainted."""
    taints = ({"key": "driftline/spot", "value": "true", "effect": "NoSchedule"},) if is_spot else ()
    return Node(name=name, cpu=2.0, is_spot=is_spot, labels=SPOT if is_spot else {}, taints=taints)


def _attempt(pod: Pod) -> str:
    return str(pod["metadata"]["labels"]["driftline/attempt"])


def _touch(path: Path) -> bool:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.close(descriptor)
    return True
