"""Map Kubernetes reasons, taints, conditions, events and words to failure classes, and quote the evidence.

This covers evidence whose name alone does not decide (`platform_assets/base/failures.py`). `pods.py` decides which
evidence wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from platform_assets.base import failures
from platform_assets.base.failures import Failure
from platform_assets.base.wording import one_line
from platform_assets.kubernetes.manifest import CONTAINER
from platform_assets.kubernetes.pod_status import Condition, Container, Event, Node, Pod
from platform_assets.launch.image import is_refusal

NEVER_PULLED = ("InvalidImageName", "ErrImageNeverPull")
"""Reasons of an image that no kubelet asks a registry for."""
PASSES = re.compile(r"pull QPS exceeded|failed to sync .* cache", re.IGNORECASE)
"""A kubelet's own limits, which pass by themselves within seconds."""
OF_VOLUME = "EmptyDir volume"
"""In a kubelet's words for a limit that is a volume's."""
LIMIT = re.compile(r'limit\b.*?"?\b(\d+(?:\.\d+)?)([KMGT]i|[kMGT]|)\b')
UNITS_GB = {"": 1e-9, "k": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3} | {
    unit: 1024.0**power / 1e9 for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)
}
NEAR_S = 300.0
"""How long before the end of a container an event of its node may explain it."""
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(: .*)?")
CAUSE_LINES = 10
"""How far from the end of a log an error without a traceback counts as its cause."""


def classify_disruption(target: Condition, *, is_departing: bool, is_node_there: bool) -> Failure:
    """Classify a condition `DisruptionTarget`.

    Args:
        is_departing: whether the node may be taken away, as a spot node, or shows that it is: handlers of notices and
            autoscalers empty it by eviction, or by a taint.
        is_node_there: whether its kubelet reported how the container ended; taints also mark unreachable nodes.
    """
    if target.reason == "DeletionByTaintManager" and not is_node_there:
        return failures.NODE_LOST
    if target.reason in ("EvictionByEvictionAPI", "DeletionByTaintManager"):
        return failures.PREEMPTED if is_departing else failures.EVICTED
    # A kubelet gives this reason for pressure on its node too; its words tell a shutdown from that.
    if target.reason == "TerminationByKubelet" and re.search("shutdown|preempt", target.message, re.IGNORECASE):
        return failures.PREEMPTED
    return failures.BY_DISRUPTION.get(target.reason, failures.PREEMPTED)


def classify_event(
    events: Sequence[Event],
    started_at: datetime | None = None,
    ended_at: datetime | None = None,
    *,
    among: Sequence[Failure] = failures.FAILURES,
) -> tuple[Failure, str] | None:
    """Return the class of the first event that has one of them, and the event quoted.

    Args:
        events: about the pod and its node.
        started_at: when the container started; a node that was lost before that was back by then.
        ended_at: when the container ended; events that came long before it explain nothing.
    """
    for event in events:
        if ended_at and event.last_at and event.last_at < ended_at - timedelta(seconds=NEAR_S):
            continue
        if event.message.startswith("Cancelling"):  # the taint manager's reason when it cancels an eviction
            continue
        failure = classify_words(event.message, among=failures.TAKERS) or failures.BY_EVENT.get(event.reason)
        if failure is failures.EVICTED:
            failure = classify_eviction(event.message)
        failure = failure or classify_words(event.message, among=PATTERNS_ANYWHERE)
        if failure is failures.NODE_LOST and started_at and event.last_at and event.last_at < started_at:
            continue
        if failure is not None and failure in among:
            return failure, quote(f"event {event.reason}", event.message)
    return None


def classify_eviction(message: str) -> Failure:
    """Classify an eviction by a kubelet's words: for a limit of the pod's own, or because the node ran short."""
    return classify_words(message, among=(failures.OUT_OF_SHM, failures.OUT_OF_DISK)) or failures.EVICTED


def evictions(events: Sequence[Event]) -> list[Event]:
    """Return the events of evictions; where a step ended within its grace, nothing else may tell of one."""
    return [event for event in events if event.reason in failures.EVICTED.events]


def started_at(events: Sequence[Event]) -> datetime | None:
    """Return when the step's container started, as its kubelet's events say; None if they do not."""
    started = (event.first_at for event in events if event.reason == "Started" and event.container == CONTAINER)
    return next(started, None)


def classify_stop(events: Sequence[Event]) -> tuple[Failure, str] | None:
    """Return the event `Killing` as weak evidence: somebody deleted the pod, or its node is being emptied."""
    stopped = next((event.message for event in events if event.reason == "Killing"), None)
    return None if stopped is None else (failures.PREEMPTED, quote("event Killing", stopped))


PATTERNS_ANYWHERE = tuple(failure for failure in failures.FAILURES if failure.patterns and failure.other_node)
"""Classes whose words mean the same wherever they stand; others count only in a certain place."""


def has_words(failure: Failure, message: str) -> bool:
    """Return whether a message has a class's words."""
    return any(re.search(pattern, message, re.IGNORECASE | re.DOTALL) for pattern in failure.patterns)


def classify_words(message: str, *, among: Sequence[Failure] = failures.FAILURES) -> Failure | None:
    """Return the first class that has words in a message."""
    return next((failure for failure in among if has_words(failure, message)), None)


def limit_gb(message: str) -> float | None:
    """Return the limit that a message says was exceeded, in 10^9 bytes; None if it names none."""
    match = LIMIT.search(message)
    return float(match[1]) * UNITS_GB[match[2]] if match else None


def find_waiting(pod: Pod, reasons: Collection[str]) -> Container | None:
    """Return the first container, init containers before the step's, that waits for one of the reasons."""
    containers = (*pod.init, *([pod.step] if pod.step else []))
    waiting = (item for item in containers if item.state == "waiting" and item.reason in reasons)
    return next((item for item in waiting if not PASSES.search(item.message)), None)


def failed_pulls(events: Sequence[Event]) -> list[Event]:
    """Return the events of failed pulls; a kubelet counts them up while their words stay the same."""
    return [event for event in events if event.reason == "Failed" and event.message.startswith("Failed to pull image")]


def is_refused(waiting: Container, events: Sequence[Event]) -> bool:
    """Return whether an image is refused or unknown, so that waiting is useless."""
    messages = [waiting.message, *(event.message for event in failed_pulls(events))]
    return waiting.reason in NEVER_PULLED or any(is_refusal(message) for message in messages)


def node_loss(node: Node | None) -> str | None:
    """Return the evidence that a node is lost. Ready=False is not evidence: such a node may still end its pods."""
    if node is None:
        return None
    if node.is_gone:
        return "the node is gone"
    return f"node {quote_condition(node.ready)}" if node.ready.status == "Unknown" else None


def classify_node(node: Node | None) -> tuple[Failure, str] | None:
    """Return the class of a step whose node is about to be taken away or has a broken device, and the evidence."""
    if node is None:
        return None
    for taint in node.taints:
        for failure in failures.FAILURES:
            if taint.startswith(failure.taints):
                return failure, f"node taint {taint}"
    for condition in node.conditions:
        for failure in failures.FAILURES:
            for kind, _, status in (sign.partition("=") for sign in failure.node_conditions):
                if kind in condition.kind and condition.status == (status or "True"):
                    return failure, f"node {quote_condition(condition)}"
    return None


def is_marked_unreachable(pod: Pod) -> bool:
    """Return whether the cluster marked a pod because its node is silent; seen without the right to read nodes.

    A kubelet sets `Ready` and `ContainersReady` together. The node controller sets `Ready` alone, without a reason.
    """
    ready = pod.condition("Ready")
    is_marked = ready.status == "False" and not ready.reason
    return is_marked and pod.condition("ContainersReady").status == "True"


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
    message = cause(container.message) if container.state == "terminated" else container.message
    return quote(f"{text}, reason {container.reason}" if container.reason else text, message)


def cause(log: str) -> str:
    """Return the end of a container's own log that says why it ended.

    That is the exception of the last traceback, or an error near the end, with all the lines that follow; otherwise the
    last line, with those before it that it closes: an error that prints a document ends with a brace.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    last_frame = max((at for at, line in enumerate(lines) if line.startswith("  File ")), default=None)
    if last_frame is not None:
        begins = [at for at in range(last_frame, len(lines)) if EXCEPTION.fullmatch(lines[at])][:1]
    else:
        begins = [at for at in range(max(0, len(lines) - CAUSE_LINES), len(lines)) if ERROR.fullmatch(lines[at])][-1:]
    if begins:
        return "\n".join(lines[begins[0] :])
    first = len(lines) - 1
    while first > 0 and lines[first][0] in " \t}])":
        first -= 1
    return "\n".join(lines[max(first, 0) :])


def quote_waiting(container: Container, events: Sequence[Event]) -> str:
    """Quote what a container waits for; if its state has no message, or only says that it waits, add the event's."""
    failed = [event.message for event in events if event.reason == "Failed" and "Error: ErrImage" not in event.message]
    is_explained = container.message and not container.message.startswith("Back-off")
    return quote(quote_container(container), "" if is_explained or not failed else failed[-1])


def with_container(pod: Pod, text: str) -> str:
    """Append how the step's container ended, if it did."""
    step = pod.step
    return f"{text}; {quote_container(replace(step, message=''))}" if step and step.state == "terminated" else text


def quote(text: str, message: str) -> str:
    """Append a message in quotation marks, if there is one."""
    return f'{text}: "{one_line(message)}"' if message.strip() else text
