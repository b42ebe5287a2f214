"""Find out from a pod how a try ended: one pure function over what the API shows, for every class of failure.

Once a pod is over, evidence wins in this order:

1. the step's container ended with 0, and the pod is not Failed: it finished, whatever else is shown;
2. `OOMKilled`: a step that used up its memory stays the cause even if it was disrupted too;
3. `status.reason`, the kubelet's own verdict; then the condition `DisruptionTarget`, which some evictions carry alone;
4. a deletion that was requested before it ended;
5. an init container, or a container that never started; then signals and exit codes; then events.

A pod with a running container is over only when its node is lost, or when its grace period passed and nobody confirmed
its end. Only times of the same clock are compared: container times with container times, and creation and deletion with
`now`, which the caller takes from the API server's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from platform_assets import failures
from platform_assets.failures import FAILURES, Failure
from platform_assets.profiles import StepProfile
from resources.launchers.endings import Ending
from resources.launchers.evidence import (
    classify_disruption,
    classify_event,
    find_waiting,
    is_no_image,
    node_departure,
    node_loss,
    quote,
    quote_condition,
    quote_container,
    quote_pod,
    quote_waiting,
    with_container,
)
from resources.launchers.pod_status import Container, Node, Pod, one_line, read_pod

CONFIRM_S = 60.0
"""A live kubelet confirms an end within seconds of the grace period; after this the node counts as lost."""
CLOCKS_S = 5.0
"""How far a node's clock may be behind the API server's before an end looks earlier than the request for it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything known when an ending is judged."""

    pod: Pod
    is_gone: bool
    before: Pod | None
    node: Node | None
    events: Sequence[tuple[str, str]]
    now: datetime
    profile: StepProfile


Finding = tuple[Failure | None, str]
Rule = Callable[[Case], Finding | None]


def ending(
    pod: Pod | None,
    *,
    now: datetime,
    profile: StepProfile,
    events: Sequence[tuple[str, str]] = (),
    node: Node | None = None,
    last_seen: Pod | None = None,
) -> Ending | None:
    """Return how a try ended; None while it goes on.

    Args:
        pod: None if the API answers 404.
        now: by the API server's clock.
        profile: of the try.
        events: reason and message, about pod and node; they count only where the pod itself shows nothing.
        node: of the pod; None if it was not read.
        last_seen: the newest answer before this one; the evidence if `pod` is None.
    """
    current = pod or last_seen or read_pod(None)
    case = Case(pod=current, is_gone=pod is None, before=last_seen, node=node, events=events, now=now, profile=profile)
    rules = _OVER if current.is_over else _LIVE
    for rule in (*rules, _gone) if case.is_gone else rules:
        if finding := rule(case):
            return _ending(case, *finding)
    return None


def _ending(case: Case, failure: Failure | None, text: str) -> Ending:
    step = case.pod.step or Container()
    earlier = (case.before and case.before.step) or Container()
    started_at, ended_at = step.started_at or earlier.started_at, step.ended_at
    if started_at and ended_at and ended_at < started_at:
        started_at = ended_at = None  # its node's clock was set back in between
    code = 0 if failure is None and step.exit_code is None else step.exit_code
    return Ending(
        failure=failure,
        evidence=one_line(f"{text}; the pod is gone" if case.is_gone and "gone" not in text else text),
        exit_code=code if step.reason not in failures.INIT.waiting else None,
        asked_at=case.pod.created_at or (case.before.created_at if case.before else None),
        started_at=started_at,
        ended_at=ended_at,
        is_final=failure is failures.IMAGE and is_no_image(case.pod),
    )


# -- rules for a pod that is over --


def _finished(case: Case) -> Finding | None:
    pod, step = case.pod, case.pod.step
    succeeded = pod.phase == "Succeeded" and not (step and step.failed)
    # If the pod is Failed for a cause of its own, this 0 is a process that ended early on SIGTERM.
    has_cause = pod.phase == "Failed" and (pod.reason or pod.condition("DisruptionTarget").status == "True")
    if succeeded or (step and step.finished and not has_cause):
        return None, quote_container(step) if step and step.state == "terminated" else "the pod is Succeeded"
    return None


def _out_of_memory(case: Case) -> Finding | None:
    step = case.pod.step
    return (
        (failures.OUT_OF_MEMORY, quote_container(step)) if step and step.failed and step.reason == "OOMKilled" else None
    )


def _by_reason(case: Case) -> Finding | None:
    pod = case.pod
    if pod.phase != "Failed" or not pod.reason:
        return None
    if failure := failures.BY_POD_REASON.get(pod.reason):
        return failure, quote_pod(case.pod)
    # Any other reason is a kubelet's refusal to admit the pod: OutOfcpu, UnexpectedAdmissionError, NodeAffinity ...
    code = pod.step.exit_code if pod.step and pod.step.state == "terminated" else None
    if code is not None and failures.of_signal(code) is None:
        return None  # it had already ended by itself
    had_run = pod.has_run or (case.before is not None and case.before.has_run)
    # A node that came back refuses what it had been running.
    return failures.NODE_LOST if had_run else failures.ADMISSION, quote_pod(case.pod)


def _disrupted(case: Case) -> Finding | None:
    target = case.pod.condition("DisruptionTarget")
    if target.status != "True":
        return None
    has_code = case.pod.step is not None and case.pod.step.exit_code is not None
    failure = classify_disruption(
        target, is_spot=case.profile.is_spot, is_node_there=has_code and not node_loss(case.node)
    )
    return failure, with_container(case.pod, quote_condition(target))


def _asked_to_stop(case: Case) -> Finding | None:
    stop_requested_at, step = case.pod.stop_requested_at(case.profile.grace_s), case.pod.step
    if stop_requested_at is None:
        return None
    ended_at = step.ended_at if step else None
    if ended_at and ended_at < stop_requested_at - timedelta(seconds=CLOCKS_S):
        return None  # it had ended by itself before it was deleted
    return failures.PREEMPTED, with_container(case.pod, "the pod was deleted")


def _init_failed(case: Case) -> Finding | None:
    if case.pod.step and case.pod.step.state == "terminated" and case.pod.step.reason not in failures.INIT.waiting:
        return None
    failed = [container for container in case.pod.init if container.failed and not container.is_sidecar]
    return (failures.INIT, f"init {quote_container(failed[0])}") if failed else None


def _by_exit(case: Case) -> Finding | None:
    step = case.pod.step
    if step is None or not step.failed:
        return None
    text = quote_container(step)
    if step.reason in failures.INIT.waiting:
        return failures.INIT, text
    if step.is_unknown:
        return failures.NODE_LOST, text
    failure = failures.CODE if step.exit_code is None else failures.of_signal(step.exit_code) or failures.CODE
    return _killed(case, text) if failure is failures.KILLED else (failure, text)


def _killed(case: Case, text: str) -> Finding:
    """Explain a SIGKILL without other evidence.

    Some runtimes report out of memory as `Error`, so that is the first guess: asking once for more memory is bounded,
    while a code error would fail the run. A node that is being taken away is a better explanation.
    """
    if event := classify_event(case.events):
        return event[0], f"{text}; {event[1]}"
    if away := node_departure(case.node):
        return away[0], f"{text}; {away[1]}"
    if sign := node_loss(case.node):
        return failures.NODE_LOST, f"{text}; {sign}"
    return failures.OUT_OF_MEMORY, f"{text}; nothing else shows what killed it"


def _unexplained(case: Case) -> Finding | None:
    if event := classify_event(case.events):
        return event
    step = case.pod.step
    if step and step.finished:
        return None, quote_container(step)
    return failures.NODE_LOST, f"{quote_pod(case.pod)}, and nothing shows why"


# -- rules for a pod that is not over --


def _node_lost(case: Case) -> Finding | None:
    pod = case.pod
    if pod.phase == "Unknown" or pod.reason == "NodeLost":
        return failures.NODE_LOST, quote_pod(case.pod)
    if pod.has_node and (sign := node_loss(case.node)):
        return failures.NODE_LOST, f"{sign}; the pod was last {pod.phase or 'seen'}"
    is_late = pod.ends_by is not None and case.now >= pod.ends_by + timedelta(seconds=CONFIRM_S)
    if pod.ends_by and is_late and pod.has_node and not case.is_gone:
        until = f"{pod.ends_by:%Y-%m-%dT%H:%M:%SZ}"
        return failures.NODE_LOST, f"the pod was to end by {until}, and no kubelet confirmed it"
    return None


def _not_begun(case: Case) -> Finding | None:
    if case.pod.has_run:
        return None
    for failure in FAILURES:
        if waiting := find_waiting(case.pod, failure.waiting):
            return failure, quote_waiting(waiting, case.events)
    return _init_failed(case)


def _not_mounted(case: Case) -> Finding | None:
    scheduled = case.pod.condition("PodScheduled")
    if case.pod.phase != "Pending" or scheduled.status != "True" or scheduled.since is None:
        return None
    stuck = [(failure, event) for event in case.events for failure in FAILURES if event[0] in failure.stuck_events]
    if stuck and case.now >= scheduled.since + timedelta(seconds=case.profile.schedule_timeout_s):
        failure, (reason, message) = stuck[-1]
        return failure, quote(f"event {reason}", message)
    return None


def _unschedulable(case: Case) -> Finding | None:
    pod, scheduled = case.pod, case.pod.condition("PodScheduled")
    if pod.has_node or pod.phase not in ("Pending", "") or scheduled.reason == "SchedulingGated":
        return None  # a gated pod waits for admission by a queue, not for a node
    created_at = pod.created_at or (case.before.created_at if case.before else None) or scheduled.since
    timeout_s = case.profile.schedule_timeout_s
    if created_at is None or case.now < created_at + timedelta(seconds=timeout_s):
        return None
    tried = [message for reason, message in case.events if reason == "FailedScheduling"]
    text = quote_condition(scheduled) if scheduled.kind else "no scheduler has looked at the pod"
    text = quote(text, "" if scheduled.message or not tried else tried[-1])
    return failures.UNSCHEDULABLE, f"no node after {timeout_s:g} s: {text}"


# -- for a pod that answers 404, over or not --


def _gone(case: Case) -> Finding | None:
    if finding := _disrupted(case) or classify_event(case.events):
        return finding
    if sign := node_loss(case.node):
        return failures.NODE_LOST, sign
    if away := node_departure(case.node):
        return away
    if case.before is None:
        return failures.NODE_LOST, "the pod is gone and was never seen"
    if case.pod.ends_by:
        return failures.PREEMPTED, "the pod was deleted"
    if not case.pod.has_node:
        return failures.PREEMPTED, "the pod is gone and never had a node"
    return failures.NODE_LOST, f"the pod is gone, last {case.pod.phase or 'without a phase'}, and nothing shows why"


_OVER: tuple[Rule, ...] = (
    _finished,
    _out_of_memory,
    _by_reason,
    _disrupted,
    _asked_to_stop,
    _init_failed,
    _by_exit,
    _unexplained,
)
_LIVE: tuple[Rule, ...] = (_node_lost, _not_begun, _not_mounted, _unschedulable)
