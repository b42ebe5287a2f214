"""Every way in which the double's cluster can fail, as methods for tests: of pods, nodes and the API server."""

import copy
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.doubles.cluster import statuses
from tests.doubles.cluster.kubelet import Order
from tests.doubles.cluster.objects import ApiProblem, Object

DELETING = {"drain": ("EvictionByEvictionAPI", "Eviction API: evicting")}
DELETING["scheduler"] = ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")
REASONS = {429: "TooManyRequests", 503: "ServiceUnavailable", 504: "Timeout"}


class Faults:
    """Pods are named, and of the cluster's first namespace. What ends one returns whether it still ran."""

    fixtures = Path(__file__).resolve().parent.parent / "pod_statuses"

    def preempt(self, pod: str, *, by: str = "node", grace_s: float | None = None, gone_s: float = 1e6) -> bool:
        """Shut the spot node of a pod down (it fails, and is gone later), or delete it by `scheduler` or `drain`."""
        output, order = self.pod(pod), Order(cause="preempted")
        order.grace_s = output["spec"]["terminationGracePeriodSeconds"] if grace_s is None else grace_s

        def show(now: Object) -> None:
            statuses.fail(now, "Terminated", statuses.SHUTDOWN)
            statuses.disrupt(now, "TerminationByKubelet", statuses.SHUTDOWN, self.store.stamp())

        if by in DELETING:
            self.api.doom(output, order.grace_s, lambda now: statuses.disrupt(now, *DELETING[by], self.store.stamp()))
        else:
            order.show = show
            self._later(gone_s, lambda: self.store.remove("pods", output))
        return self.kubelet.order(output, order)

    def evict(self, pod: str, *, with_reason: bool = True, grace_s: float = 1.0) -> bool:
        """Evict a pod because its node is low on memory; without `status.reason` only a condition tells."""

        def show(now: Object) -> None:
            now["status"]["phase"] = "Failed"
            statuses.disrupt(now, "TerminationByKubelet", statuses.LOW_MEMORY, self.store.stamp())
            if with_reason:
                statuses.fail(now, "Evicted", statuses.LOW_MEMORY)
                self.store.tell(now, "Evicted", statuses.LOW_MEMORY, is_warning=True)

        return self.kubelet.order(self.pod(pod), Order(cause="evicted", grace_s=grace_s, show=show))

    def out_of_memory(self, pod: str) -> bool:
        """Kill a pod's containers as the kernel does at a memory limit."""
        return self.kubelet.order(self.pod(pod), Order(cause="out_of_memory", show=statuses.say_out_of_memory))

    def kill(self, pod: str) -> bool:
        """Send SIGKILL to a pod's containers for no reason that anybody shows: exit code 137, reason Error."""
        return self.kubelet.order(self.pod(pod), Order(cause="killed"))

    def vanish(self, pod: str) -> bool:
        """Let a pod disappear: 404, and never a status of its end."""
        output = self.pod(pod)
        has_hit = self.kubelet.order(output, Order(cause="vanished", is_silent=True))
        self.store.remove("pods", output)
        return has_hit

    def lose_node(self, node: str, *, is_partition: bool = False, evict_s: float = 0.2, gone_s: float = 0.2) -> None:
        """Lose a node: its pods are shown Running, then evicted, then gone; in a partition their processes go on."""
        self.kubelet.unreachable.add(node)
        stamp, message = self.store.stamp(), "Kubelet stopped posting node status."

        def show(now: Object) -> None:
            statuses.set_condition(now, "Ready", "Unknown", stamp, "NodeStatusUnknown", message)
            taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
            now["spec"]["taints"] = [*now["spec"].get("taints", []), taint, taint | {"effect": "NoExecute"}]

        def evict(pod: Object) -> None:
            grace_s = pod["spec"]["terminationGracePeriodSeconds"]
            message = "Taint manager: deleting due to NoExecute taint"
            self.api.doom(pod, grace_s, lambda now: statuses.disrupt(now, "DeletionByTaintManager", message, stamp))
            self._later(gone_s, lambda: self.store.remove("pods", pod))

        self.store.change("nodes", self.store.get("nodes", "", node), show)
        for pod in [item for item in self.store.every("pods") if item["spec"].get("nodeName") == node]:
            if not is_partition:
                self.kubelet.order(pod, Order(cause="node_lost", is_silent=True))
            self.store.change("pods", pod, lambda now: statuses.set_condition(now, "Ready", "False", stamp))
            self.store.tell(pod, "NodeNotReady", "Node is not ready", "node-controller", is_warning=True)
            self._later(evict_s, lambda pod=pod: evict(pod))

    def end_with(self, pod: str, fixture: str, *, gone_s: float = 0.3) -> bool:
        """End a pod on a node, and show a fixture as it is stored: status, events, node; then 404 if it says "gone"."""
        output, stored = self.pod(pod), self._fixture(fixture)
        order = Order(cause=stored["failure"] or "natural", show=lambda now: self._overlay(now, stored))
        if stored["failure"] in ("preempted", "evicted", "deadline"):
            order.grace_s = output["spec"]["terminationGracePeriodSeconds"]
        has_hit = self.kubelet.order(output, order)
        self._finish(output, stored, gone_s)
        return has_hit

    def end_next_with(self, fixture: str, *, count: int = 1, gone_s: float = 0.3) -> None:
        """Let the next pods show a fixture instead of running anything."""
        self._instead(self._fixture(fixture), count, gone_s)

    def refuse_admission(self, message: str = statuses.NO_DEVICE, *, count: int = 1) -> None:
        """Let the kubelet refuse the next pods: phase Failed and no container statuses."""
        reason = {"reason": "UnexpectedAdmissionError", "message": message}
        events = [{"type": "Warning"} | reason]
        self._instead({"failure": "admission", "status": {"phase": "Failed"} | reason, "events": events}, count, 0.0)

    def _fixture(self, name: str) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads((self.fixtures / f"{name}.json").read_text(encoding="utf-8"))
        return stored

    def _instead(self, stored: dict[str, Any], count: int, gone_s: float) -> None:
        def instead(pod: Object) -> None:
            self.kubelet.journal.write(pod, stored["failure"] or "natural")
            self.store.change("pods", pod, lambda now: self._overlay(now, stored))
            self._finish(pod, stored, gone_s)

        self.kubelet.plans["instead"].extend([instead] * count)

    def refuse_creation(self, requested: str = "requests.nvidia.com/gpu=1", *, count: int = 1) -> None:
        """Let a quota refuse the next pods that are created through the API: 403."""
        self.kubelet.plans["quota"].extend([requested] * count)

    def init_failure(self, exit_code: int = 1, *, count: int = 1) -> None:
        """Inject an init container that fails into the next pods, as a mesh's webhook injects its own."""
        self.kubelet.plans["init"].extend([exit_code] * count)

    def fail_requests(self, code: int, *, count: int = 1, verb: str | None = None, is_done: bool = False) -> None:
        """Answer the next requests (of a verb: get, list, watch, create, delete, log) with 500, 503, 504, 429 ...

        Code 0 closes the connection without an answer; `is_done`: the request is carried out, its answer lost.
        """
        message = "The server has received too many requests and has asked us to try again later"
        message = message if code == 429 else "Internal error occurred: etcdserver: request timed out"
        wait = {"retryAfterSeconds": 1} if code == 429 else None
        problem = ApiProblem(code, REASONS.get(code, "InternalError"), message, wait) if code else None
        self.api.failures.append([count, verb, problem, is_done])

    def silence(self, seconds: float, *, refuses: bool = False) -> None:
        """Answer nothing for a while: every connection hangs, or is closed at once; open streams are cut."""
        self.api.silent_until, self.api.refuses = time.monotonic() + seconds, refuses

    def cut_log(self, after_bytes: int = 0, *, is_clean: bool = False, count: int = 1) -> None:
        """Cut the next log streams in their middle; cleanly: they look like the end of the log."""
        self.api.cuts.extend([(after_bytes, is_clean)] * count)

    def pod(self, name: str) -> Object:
        return self.store.get("pods", self.namespace, name)

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        self._timers.append(threading.Timer(seconds, act))
        self._timers[-1].daemon = True
        self._timers[-1].start()

    def _overlay(self, pod: Object, stored: dict[str, Any]) -> None:
        # What every API server shows of a container, and a client insists on, is filled in where it was cut short.
        always = {"image": "cut-short", "imageID": "", "ready": False, "restartCount": 0, "lastState": {}, "state": {}}
        metadata, status = stored.get("metadata") or {}, {"phase": "Running"} | stored["status"]
        for field in {"initContainerStatuses", "containerStatuses"} & status.keys():
            status[field] = [always | {"name": "cut-short"} | item for item in status[field] or []]
        for item in (status.get("containerStatuses") or [])[:1]:
            item["name"] = pod["spec"]["containers"][0]["name"]
        labels = (pod["metadata"].get("labels") or {}) | (metadata.get("labels") or {})
        deletion = {"deletionTimestamp", "deletionGracePeriodSeconds"} & metadata.keys()
        pod["metadata"] |= {key: metadata[key] for key in deletion} | {"labels": labels}
        pod["status"] = copy.deepcopy(status)

    def _finish(self, pod: Object, stored: dict[str, Any], gone_s: float) -> None:
        for event in stored.get("events") or []:
            source, is_warning = (event.get("source") or {}).get("component"), event.get("type") == "Warning"
            self.store.tell(pod, event["reason"], event["message"], source or "kubelet", is_warning=is_warning)
        node, output = self.store.find("nodes", "", pod["spec"].get("nodeName", "")), stored.get("node")
        if node and output:
            for key in ("status", "spec"):
                self.store.change("nodes", node, lambda now, key=key: now[key].update(output.get(key) or {}))
        if stored.get("gone"):
            self._later(gone_s, lambda: self.store.remove("pods", pod))
