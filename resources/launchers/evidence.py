"""Map Kubernetes reasons, taints and events to failure classes, and quote the evidence.

This covers evidence whose name alone does not decide (`platform_assets/failures.py`). `pods.py` decides which evidence
wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from platform_assets.failures import BY_DISRUPTION, BY_EVENT, EVICTED, FAILURES, IMAGE, NODE_LOST, PREEMPTED, Failure
from resources.launchers.pod_status import Condition, Container, Node, Pod, one_line

NEVER_AN_IMAGE = re.compile(r"manifest unknown|not found|does not exist", re.IGNORECASE)
PASSES = re.compile(r"pull QPS exceeded|failed to sync .* cache", re.IGNORECASE)
"""A kubelet's own limits, which pass by themselves within seconds."""


def classify_disruption(target: Condition, *, is_spot: bool, is_node_there: bool) -> Failure:
    """Classify a condition `DisruptionTarget`.

    Args:
        target: the condition.
        is_spot: whether the node may be taken away: handlers of spot notices and autoscalers empty it by eviction.
        is_node_there: whether its kubelet reported how the container ended; taints also mark unreachable nodes.
    """
    if target.reason == "EvictionByEvictionAPI":
        return PREEMPTED if is_spot else EVICTED
    if target.reason == "DeletionByTaintManager":
        return PREEMPTED if is_node_there else NODE_LOST
    if target.reason == "TerminationByKubelet" and re.search("shutdown|preempt", target.message, re.IGNORECASE):
        return PREEMPTED
    return BY_DISRUPTION.get(target.reason, PREEMPTED)


def classify_event(events: Sequence[tuple[str, str]]) -> tuple[Failure, str] | None:
    """Return the class of the first event that has one, and the event quoted.

    The event `Killing` is weak evidence: somebody deleted the pod, or its node is being emptied. It counts last.
    """
    for reason, message in events:
        failure = BY_EVENT.get(reason)
        if failure and not message.startswith("Cancelling"):  # the taint manager's reason when it cancels an eviction
            return failure, quote(f"event {reason}", message)
    stopped = next((message for reason, message in events if reason == "Killing"), None)
    return None if stopped is None else (PREEMPTED, quote("event Killing", stopped))


def find_waiting(pod: Pod, reasons: Collection[str]) -> Container | None:
    """Return the first container, init containers before the step's, that waits for one of the reasons."""
    containers = (*pod.init, *([pod.step] if pod.step else []))
    waiting = (item for item in containers if item.state == "waiting" and item.reason in reasons)
    return next((item for item in waiting if not PASSES.search(item.message)), None)


def is_no_image(pod: Pod) -> bool:
    """Return whether the pod waits for an image that does not exist, so that another try is useless."""
    waiting = find_waiting(pod, IMAGE.waiting) or Container()
    never = waiting.reason in ("InvalidImageName", "ErrImageNeverPull")
    return never or NEVER_AN_IMAGE.search(waiting.message) is not None


def node_loss(node: Node | None) -> str | None:
    """Return the evidence that a node is lost. Not ready is none: such a node may still be ending its pods."""
    if node is None:
        return None
    if node.is_gone:
        return "the node is gone"
    return f"node {quote_condition(node.ready)}" if node.ready.status == "Unknown" else None


def node_departure(node: Node | None) -> tuple[Failure, str] | None:
    """Return the class of a step whose node is about to be taken away, and the evidence."""
    if node is None:
        return None
    for taint in node.taints:
        for failure in FAILURES:
            if taint.startswith(failure.taints):
                return failure, f"node taint {taint}"
    shutdowns = [
        condition for condition in node.conditions if "Shutdown" in condition.kind and condition.status == "True"
    ]
    return (PREEMPTED, f"node {quote_condition(shutdowns[0])}") if shutdowns else None


def quote_pod(pod: Pod) -> str:
    """Quote a pod's phase, reason and message, and how its step's container ended."""
    text = f"the pod is {pod.phase or 'without a phase'}"
    return with_container(pod, quote(f"{text}, reason {pod.reason}" if pod.reason else text, pod.message))


def quote_condition(condition: Condition) -> str:
    """Quote a condition."""
    text = f"condition {condition.kind} is {condition.status}"
    return quote(f"{text}, reason {condition.reason}" if condition.reason else text, condition.message)


def quote_container(container: Container) -> str:
    """Quote a container's state, exit code, reason and message."""
    text = f"container {container.name or 'without a name'}"
    text += {"terminated": " ended", "waiting": " is waiting", "running": " is running", "": " shows no state"}[
        container.state
    ]
    if container.exit_code is not None:
        text += f" with exit code {container.exit_code}"
    lines = [line for line in container.message.splitlines() if line.strip()]
    message = lines[-1] if lines and container.state == "terminated" else container.message  # the end of its own log
    return quote(f"{text}, reason {container.reason}" if container.reason else text, message)


def quote_waiting(container: Container, events: Sequence[tuple[str, str]]) -> str:
    """Quote what a container waits for; if its state has no message, add the event's."""
    failed = [message for reason, message in events if reason == "Failed"]
    return quote(quote_container(container), "" if container.message or not failed else failed[-1])


def with_container(pod: Pod, text: str) -> str:
    """Append how the step's container ended, if it did."""
    step = pod.step
    return f"{text}; {quote_container(replace(step, message=''))}" if step and step.state == "terminated" else text


def quote(text: str, message: str) -> str:
    """Append a message in quotation marks, if there is one."""
    return f'{text}: "{one_line(message)}"' if message.strip() else text
