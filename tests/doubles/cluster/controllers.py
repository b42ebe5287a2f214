"""The double's control plane besides its API: nodes, the scheduler that puts pods on them, jobs that make pods."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from kubernetes.utils import parse_quantity

from tests.doubles.cluster import statuses
from tests.doubles.cluster.api import Api
from tests.doubles.cluster.kubelet import Worker
from tests.doubles.cluster.objects import Object, Store, walk


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the double; `extended` are its other resources, `taints` as the API gives them."""

    name: str
    cpu: float = 8.0
    memory: str = "32Gi"
    extended: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    zone: str = "zone-a"
    is_spot: bool = False

    def shown(self, stamp: str) -> Object:
        has = {"cpu": str(self.cpu), "memory": self.memory, "pods": "110"}
        has |= {key: str(count) for key, count in self.extended.items()}
        labels = {"topology.kubernetes.io/zone": self.zone} | dict(self.labels)
        labels["karpenter.sh/capacity-type"] = "spot" if self.is_spot else "on-demand"
        node: Object = {"metadata": {"name": self.name, "labels": labels}, "status": {"allocatable": has}}
        node["spec"] = {"taints": [dict(taint) for taint in self.taints]}
        statuses.set_condition(node, "Ready", "True", stamp, "KubeletReady", "kubelet is posting ready status")
        return node


def requests(pod: Object) -> dict[str, Decimal]:
    """Return what a pod asks for: the most of what any of its containers does, for they run one after another."""
    most = {"pods": Decimal(1)}
    for _, spec in walk(pod):
        resources = spec.get("resources") or {}
        request = (resources.get("limits") or {}) | (resources.get("requests") or {})
        most |= {key: max(parse_quantity(value), most.get(key, Decimal())) for key, value in request.items()}
    return most


class Controller(threading.Thread):
    """Calls `act` whenever something in the store has changed, and twice a second."""

    def __init__(self, store: Store, act: Callable[[], None]) -> None:
        super().__init__(name=f"controller {act.__qualname__}", daemon=True)
        self.store, self._act, self._is_closed = store, act, False

    def cancel(self) -> None:
        with self.store.changed:
            self._is_closed = True
            self.store.changed.notify_all()

    def run(self) -> None:
        while not self._is_closed:
            with self.store.changed:
                observed = self.store.version
                self._act()
                if observed == self.store.version:
                    self.store.changed.wait(0.5)


class Scheduler:
    """Puts pods on the first node that has room; one that fits nowhere waits."""

    def __init__(self, api: Api) -> None:
        self.store, self.kubelet = api.store, api.kubelet

    def act(self) -> None:
        for pod in self.store.every("pods"):
            if not pod["spec"].get("nodeName"):
                self._place(pod)

    def _place(self, pod: Object) -> None:
        problems: Counter[str] = Counter()
        nodes = self.store.every("nodes")
        for node in nodes:
            short = _mismatches(pod, node) or self._shortages(pod, node)
            if not short:
                self._bind(pod, node["metadata"]["name"])
                return
            problems.update(short)
        counted = ", ".join(f"{number} {problem}" for problem, number in sorted(problems.items()))
        count = f"0/{len(nodes)} nodes are available"
        message = f"{count}: {counted}. preemption: {count}: {len(nodes)} Preemption is not helpful for scheduling."
        condition = ("PodScheduled", "False", self.store.stamp(), "Unschedulable", message)
        if self.store.change("pods", pod, lambda now: statuses.set_condition(now, *condition)) is not pod:
            self.store.tell(pod, "FailedScheduling", message, "default-scheduler", is_warning=True)

    def _bind(self, pod: Object, node: str) -> None:
        stamp = self.store.stamp()
        self.store.change("pods", pod, lambda now: statuses.set_condition(now, "PodScheduled", "True", stamp))
        if bound := self.store.change("pods", pod, lambda now: now["spec"].update(nodeName=node)):
            message = f"Successfully assigned {bound['metadata']['name']} to {node}"
            self.store.tell(bound, "Scheduled", message, "default-scheduler")
            Worker(self.kubelet, bound).start()

    def _shortages(self, pod: Object, node: Object) -> list[str]:
        used: Counter[str] = Counter()
        for other in self.store.every("pods"):
            is_there = other["spec"].get("nodeName") == node["metadata"]["name"]
            used.update(requests(other) if is_there and other["status"]["phase"] not in statuses.ENDED else {})
        has = node["status"]["allocatable"]
        short = [key for key, request in requests(pod).items() if used[key] + request > parse_quantity(has.get(key, 0))]
        return ["Too many pods" if key == "pods" else f"Insufficient {key}" for key in short]


def _mismatches(pod: Object, node: Object) -> list[str]:
    """Return why a node is none for a pod, however empty it is."""
    if not (pod["spec"].get("nodeSelector") or {}).items() <= node["metadata"]["labels"].items():
        return ["node(s) didn't match Pod's node affinity/selector"]
    for taint in node["spec"].get("taints") or []:
        borne = any(_bears(toleration, taint) for toleration in pod["spec"].get("tolerations") or [])
        if taint["effect"] != "PreferNoSchedule" and not borne:
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    return []


def _bears(toleration: Object, taint: Object) -> bool:
    is_any_value = toleration.get("operator") == "Exists"
    is_key = toleration.get("key") == taint["key"] or (is_any_value and not toleration.get("key"))
    is_value = is_any_value or (toleration.get("value") or "") == (taint.get("value") or "")
    return is_key and is_value and toleration.get("effect") in (None, "", taint["effect"])


class Jobs:
    """Makes the pods of jobs, and counts their ends; a pod that is gone without an end counts as failed."""

    def __init__(self, api: Api) -> None:
        self.store, self._api = api.store, api
        self._pods = dict[str, dict[str, str]]()

    def act(self) -> None:
        for job in self.store.every("jobs"):
            if not job["status"].get("conditions"):
                self._count(job, self._pods.setdefault(job["metadata"]["uid"], {}))

    def _count(self, job: Object, seen: dict[str, str]) -> None:
        namespace, limit = job["metadata"]["namespace"], job["spec"]["backoffLimit"]
        present = {pod["metadata"]["uid"]: pod["status"]["phase"] for pod in self.store.every("pods", namespace)}
        for uid, phase in seen.items():
            seen[uid] = phase if phase in statuses.ENDED else present.get(uid, "Failed")
        phases = Counter(seen.values())
        if not phases["Succeeded"] and phases["Failed"] == len(seen) <= limit:
            pod = self._api.create_pod(namespace, self._pod_of(job))
            seen[pod["metadata"]["uid"]] = "Pending"
            self.store.tell(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", "job-controller")
        active = len(seen) - phases["Succeeded"] - phases["Failed"]
        counts = {"active": active, "succeeded": phases["Succeeded"], "failed": phases["Failed"]}
        self.store.change("jobs", job, lambda now: self._show(now, phases["Running"], counts, limit))

    def _show(self, job: Object, ready: int, counts: dict[str, int], limit: int) -> None:
        stamp = self.store.stamp()
        job["status"] = {"startTime": job["status"].get("startTime", stamp), "ready": ready}
        job["status"] |= {key: count for key, count in counts.items() if count}
        if counts["succeeded"]:
            job["status"]["completionTime"] = stamp
            statuses.set_condition(job, "Complete", "True", stamp)
        elif counts["failed"] > limit:
            message = "Job has reached the specified backoff limit"
            statuses.set_condition(job, "Failed", "True", stamp, "BackoffLimitExceeded", message)

    @staticmethod
    def _pod_of(job: Object) -> Object:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        original = {"job-name": name, "controller-uid": uid}
        original |= {f"batch.kubernetes.io/{key}": value for key, value in original.items()}
        values = job["spec"]["template"].get("metadata") or {}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}
        metadata = {"name": f"{name}-{uuid.uuid4().hex[:5]}", "labels": (values.get("labels") or {}) | original}
        return {"metadata": metadata | {"ownerReferences": [owner]}, "spec": job["spec"]["template"]["spec"]}
