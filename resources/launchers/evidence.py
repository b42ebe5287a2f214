"""Know the evidence of each class of failure by name, and put it into words.

Belongs here: what reasons, taints and events stand for where their names alone (`platform_assets/failures.py`) do not
say; quoting them. Does not belong here: which evidence wins (pods.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from platform_assets.failures import BY_DISRUPTION, BY_EVENT, EVICTED, FAILURES, IMAGE, NODE_LOST, PREEMPTED, Failure
from resources.launchers.pod_status import Condition, Container, Node, Pod, one_line

NEVER_AN_IMAGE = re.compile(r"manifest unknown|not found|does not exist", re.IGNORECASE)
PASSES = re.compile(r"pull QPS exceeded|failed to sync .* cache", re.IGNORECASE)
"""A kubelet's own limits, which it waits out by itself within seconds."""


def disruption(target: Condition, *, is_spot: bool, is_node_there: bool) -> Failure:
    """Return the class of a condition `DisruptionTarget`.

    Args:
        target: the condition.
        is_spot: whether the node may be taken away: handlers of spot notices and autoscalers empty it by eviction.
        is_node_there: whether its kubelet reported how the container ended: taints also mean that nobody hears of it.
    """
    if target.reason == "EvictionByEvictionAPI":
        return PREEMPTED if is_spot else EVICTED
    if target.reason == "DeletionByTaintManager":
        return PREEMPTED if is_node_there else NODE_LOST
    if target.reason == "TerminationByKubelet" and re.search("shutdown|preempt", target.message, re.IGNORECASE):
        return PREEMPTED
    return BY_DISRUPTION.get(target.reason, PREEMPTED)


def event_of(events: Sequence[tuple[str, str]]) -> tuple[Failure, str] | None:
    """Return the class that the first telling event stands for, and the event quoted.

    That a kubelet stopped the container says least: somebody deleted the pod, or its node is being emptied.
    """
    for reason, message in events:
        failure = BY_EVENT.get(reason)
        if failure and not message.startswith("Cancelling"):  # the taint manager takes evictions back by that reason
            return failure, quoted(f"event {reason}", message)
    stopped = next((message for reason, message in events if reason == "Killing"), None)
    return None if stopped is None else (PREEMPTED, quoted("event Killing", stopped))


def waiting_for(pod: Pod, reasons: Collection[str]) -> Container | None:
    """Return the first container, init containers before the step's, that waits for one of the reasons."""
    containers = (*pod.init, *([pod.step] if pod.step else []))
    found = (each for each in containers if each.state == "waiting" and each.reason in reasons)
    return next((each for each in found if not PASSES.search(each.message)), None)


def is_no_image(pod: Pod) -> bool:
    """Return whether what the pod waits for is no image at all, so that trying again is of no use."""
    waiting = waiting_for(pod, IMAGE.waiting) or Container()
    never = waiting.reason in ("InvalidImageName", "ErrImageNeverPull")
    return never or NEVER_AN_IMAGE.search(waiting.message) is not None


def lost(node: Node | None) -> str | None:
    """Return what shows that nobody hears of the node; not ready is no such thing, since it may be ending pods."""
    if node is None:
        return None
    if node.is_gone:
        return "the node is gone"
    return f"node {of_condition(node.ready)}" if node.ready.status == "Unknown" else None


def leaving(node: Node | None) -> tuple[Failure, str] | None:
    """Return the class of a step whose node is about to be taken away, and what shows that."""
    if node is None:
        return None
    for taint in node.taints:
        for failure in FAILURES:
            if taint.startswith(failure.taints):
                return failure, f"node taint {taint}"
    shown = [each for each in node.conditions if "Shutdown" in each.kind and each.status == "True"]
    return (PREEMPTED, f"node {of_condition(shown[0])}") if shown else None


def of_pod(pod: Pod) -> str:
    """Quote a pod's phase, reason and message, and how its step's container ended."""
    said = f"the pod is {pod.phase or 'without a phase'}"
    return with_container(pod, quoted(f"{said}, reason {pod.reason}" if pod.reason else said, pod.message))


def of_condition(condition: Condition) -> str:
    """Quote a condition."""
    said = f"condition {condition.kind} is {condition.status}"
    return quoted(f"{said}, reason {condition.reason}" if condition.reason else said, condition.message)


def of_container(container: Container) -> str:
    """Quote a container's state, exit code, reason and message."""
    said = f"container {container.name or 'without a name'}"
    said += {"terminated": " ended", "waiting": " is waiting", "running": " is running", "": " shows no state"}[
        container.state
    ]
    if container.exit_code is not None:
        said += f" with exit code {container.exit_code}"
    lines = [line for line in container.message.splitlines() if line.strip()]
    message = lines[-1] if lines and container.state == "terminated" else container.message  # the end of its own log
    return quoted(f"{said}, reason {container.reason}" if container.reason else said, message)


def of_waiting(container: Container, events: Sequence[tuple[str, str]]) -> str:
    """Quote what a container waits for; where its state has no message, the event has one."""
    failed = [message for reason, message in events if reason == "Failed"]
    return quoted(of_container(container), "" if container.message or not failed else failed[-1])


def with_container(pod: Pod, said: str) -> str:
    """Add how the step's container ended, if it did."""
    step = pod.step
    return f"{said}; {of_container(replace(step, message=''))}" if step and step.state == "terminated" else said


def quoted(what: str, message: str) -> str:
    """Add a message in quotation marks, if there is one."""
    return f'{what}: "{one_line(message)}"' if message.strip() else what
