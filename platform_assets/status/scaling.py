"""Say what keeps a service from scaling or from outliving a node. Pure, but for the size of the live model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from platform_assets.facts.service_memory import needed_bytes
from platform_assets.records.values import items, member, text
from platform_assets.status.state import Step, Todo
from platform_assets.status.steps import as_line, condition, kubectl, service_todo
from platform_assets.storage.artifacts import ArtifactProblem

if TYPE_CHECKING:
    from platform_assets.handle import Product

NO_METRICS_API = "could not find the requested resource"
"""Part of the controller's message; other failures are normal for the first readings of new pods."""
FIRST_READINGS = timedelta(minutes=2)
FLAPS, RECENT = 3, timedelta(minutes=10)
_GIGABYTE = 1024**3
_QUANTITY = re.compile(r"([0-9.]+)([KMGTPE]i?|k|m)?")
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    f"{letter}{i}": float(base**power)
    for power, letter in enumerate("KMGTPE", start=1)
    for i, base in (("", 1000), ("i", 1024))
}


def bytes_of(quantity: str) -> float | None:
    """Return a quantity of Kubernetes as a number: `1Gi`, `1073741824`, `1e9`; None for what is not one."""
    matched = _QUANTITY.fullmatch(quantity)
    try:
        return float(quantity) if matched is None else float(matched[1]) * _UNITS[matched[2] or ""]
    except ValueError:
        return None


def memory(product: Product, deployments: Iterable[object]) -> Iterator[Todo]:
    """Yield Deployments whose memory limit is below what the newest release's model needs."""
    live = product.history.live()
    if live is None:
        return
    try:
        needed = needed_bytes(product, live[1])
    except ArtifactProblem:  # `driftline doctor` names what is missing
        return
    for deployment in deployments:
        for container in items(deployment, "spec", "template", "spec", "containers"):
            limit = text(container, "resources", "limits", "memory")
            size = bytes_of(limit) if text(container, "name") == "service" and limit else None
            if size is not None and size < needed:
                name = text(deployment, "metadata", "name")
                what = (
                    f"{name} limits a pod's memory to {limit}, and the model of release {live[0]} needs "
                    f"{needed / _GIGABYTE:.2f} GB: two workers and the trial of the next one load it. Raise "
                    f"Pods.memory_gb of {product.name} to that, and apply the manifest again."
                )
                step = kubectl(product, "get", "deployment", name, "--output=yaml")
                yield service_todo(what, Step(when="to see its limits", command=step))


def stuck(product: Product, deployments: Iterable[object]) -> Iterator[Todo]:
    """Yield rollouts whose new replicas do not become ready."""
    for deployment in deployments:
        progress = condition(deployment, "Progressing")
        if text(progress, "reason") != "ProgressDeadlineExceeded":
            continue
        name = text(deployment, "metadata", "name")
        ready = member(deployment, "status", "readyReplicas") or 0
        seconds = member(deployment, "spec", "progressDeadlineSeconds") or 600
        what = (
            f"The rollout of {name} is stuck: no new replica became ready within {seconds} s. Ready replicas: "
            f"{ready} of {member(deployment, 'spec', 'replicas')}; these go on answering. Find out why the new ones "
            "are not ready, or go back to the previous manifest."
        )
        undo = kubectl(product, "rollout", "undo", f"deployment/{name}")
        pods = kubectl(product, "describe", "pods", f"--selector=driftline/product={product.name}")
        yield service_todo(what, Step(when="to see why", command=pods), Step(when="to go back", command=undo))


def autoscalers(product: Product, scalers: Iterable[object], at: datetime) -> Iterator[Todo]:
    """Yield autoscalers that have no readings, so the number of replicas does not follow the load."""
    for scaler in scalers:
        active = condition(scaler, "ScalingActive")
        reason, message = text(active, "reason"), text(active, "message")
        if text(active, "status") != "False" or not reason.startswith("FailedGet"):
            continue
        is_absent = NO_METRICS_API in message
        since = _moment(text(active, "lastTransitionTime"))
        if not is_absent and (since is None or at - since < FIRST_READINGS):
            continue
        name = text(scaler, "metadata", "name")
        advice = (
            "The cluster does not serve these metrics: install metrics-server."
            if is_absent and reason == "FailedGetResourceMetric"
            else "Check what serves these metrics (metrics-server for CPU), and that each container requests CPU."
        )
        what = (
            f"The autoscaler of {name} has no readings and keeps {_replicas(scaler)} replicas under any load "
            f"({reason}: {as_line(message).rstrip('.')}). {advice}"
        )
        step = kubectl(product, "describe", "horizontalpodautoscaler", name)
        yield service_todo(what, Step(when="to see all of it", command=step))


def _replicas(scaler: object) -> object:
    return member(scaler, "status", "currentReplicas") or member(scaler, "spec", "minReplicas") or 1


def one_node(product: Product, pods: Iterable[object]) -> Iterator[Todo]:
    """Yield the node that all ready pods share: preferring a spread does not keep them apart."""
    ready = [pod for pod in pods if text(condition(pod, "Ready"), "status") == "True"]
    nodes = {text(pod, "spec", "nodeName") for pod in ready}
    if len(ready) > 1 and len(nodes) == 1 and "" not in nodes:
        (node,) = nodes
        what = (
            f"All {len(ready)} ready pods of {product.name} are on node {node}, so its loss is an outage: see that "
            "another node has room for one, then restart them."
        )
        step = kubectl(product, "rollout", "restart", "deployment", f"--selector=driftline/product={product.name}")
        yield service_todo(what, Step(when="once there is room elsewhere", command=step))


def flapping(product: Product, lost: Iterable[object], at: datetime) -> Iterator[Todo]:
    """Yield nodes that were given up several times in the last minutes: replicas there come and go with them."""
    counts, first, last = defaultdict[str, int](int), dict[str, datetime](), dict[str, datetime]()
    for event in lost:
        began, ended = (_moment(text(event, name)) for name in ("firstTimestamp", "lastTimestamp"))
        if began is None or ended is None:
            continue
        node, count = text(event, "involvedObject", "name"), member(event, "count")
        counts[node] += count if isinstance(count, int) else 1
        first[node], last[node] = min(first.get(node, began), began), max(last.get(node, ended), ended)
    for node, count in sorted(counts.items()):
        span = last[node] - first[node]
        is_rare = span > RECENT * count / FLAPS
        if count < FLAPS or is_rare or at - last[node] > RECENT:
            continue
        minutes = max(1, round(span / timedelta(minutes=1)))
        what = (
            f"Node {node} was lost {count} times within {minutes} min and came back: replicas of {product.name} there "
            "stop answering each time. Take it out of use until its network or its kubelet is repaired."
        )
        step = f"kubectl drain {node} --ignore-daemonsets --delete-emptydir-data"
        yield service_todo(what, Step(when="to take it out of use", command=step))


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp)
    except ValueError:
        return None
