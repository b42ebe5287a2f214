"""Say from a pod how a try ended: one pure function over what the API shows, for every class of failure.

Belongs here: the evidence of each class, and which evidence wins. Does not belong here: asking the API
(kubernetes.py), how its JSON is read (pod_status.py), or what is done about an ending (endings.py).

Which evidence wins, first to last, once a pod is over:

1. the step's container ended with 0, and the pod is not Failed: it finished, whatever else is shown;
2. `OOMKilled`: a step that used up its memory stays guilty when it was disrupted too;
3. `status.reason`, the kubelet's own verdict; then the condition `DisruptionTarget`, which some evictions carry alone;
4. a deletion that it was told of before it ended;
5. an init container, or a container that never began; then signals and exit codes; then events.

A pod with a running container is over only when its node is lost, or its time to end passed and nobody confirmed it.
Times of one clock are compared with each other alone: container times with container times, and creation and
deletion with `now`, which the caller takes from the API server's own answer.
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
    disruption,
    event_of,
    is_no_image,
    leaving,
    lost,
    of_condition,
    of_container,
    of_pod,
    of_waiting,
    quoted,
    waiting_for,
    with_container,
)
from resources.launchers.pod_status import Container, Node, Pod, one_line, read_pod

CONFIRM_S = 60.0
"""A kubelet that lives confirms an end within seconds of the grace period; after this the node counts as lost."""
CLOCKS_S = 5.0
"""How far a node's clock may be behind the API server's before an end looks older than the request for it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that is known when an ending is asked for."""

    pod: Pod
    is_gone: bool
    before: Pod | None
    node: Node | None
    events: Sequence[tuple[str, str]]
    now: datetime
    profile: StepProfile


Found = tuple[Failure | None, str]
Rule = Callable[[Case], Found | None]


def ending(
    pod: Pod | None,
    *,
    now: datetime,
    profile: StepProfile,
    events: Sequence[tuple[str, str]] = (),
    node: Node | None = None,
    last_seen: Pod | None = None,
) -> Ending | None:
    """Return how a try ended; None: go on watching.

    Args:
        pod: None: the API answers 404.
        now: by the API server's clock.
        profile: of the try.
        events: reason and message of those about pod and node; they decide only where the pod itself says nothing.
        node: of the pod; None: it was not asked for.
        last_seen: the newest answer before this one; with `pod` None it holds what evidence there is.
    """
    found = pod or last_seen or read_pod(None)
    case = Case(pod=found, is_gone=pod is None, before=last_seen, node=node, events=events, now=now, profile=profile)
    rules = _OVER if found.is_over else _LIVE
    for rule in (*rules, _gone) if case.is_gone else rules:
        if decided := rule(case):
            return _ending(case, *decided)
    return None


def _ending(case: Case, failure: Failure | None, said: str) -> Ending:
    step = case.pod.step or Container()
    earlier = (case.before and case.before.step) or Container()
    started_at, ended_at = step.started_at or earlier.started_at, step.ended_at
    if started_at and ended_at and ended_at < started_at:
        started_at = ended_at = None  # its node's clock was set back between the two
    code = 0 if failure is None and step.exit_code is None else step.exit_code
    return Ending(
        failure=failure,
        said=one_line(f"{said}; the pod is gone" if case.is_gone and "gone" not in said else said),
        exit_code=code if step.reason not in failures.INIT.waiting else None,
        asked_at=case.pod.created_at or (case.before.created_at if case.before else None),
        started_at=started_at,
        ended_at=ended_at,
        is_final=failure is failures.IMAGE and is_no_image(case.pod),
    )


# -- of a pod that is over --


def _finished(case: Case) -> Found | None:
    pod, step = case.pod, case.pod.step
    succeeded = pod.phase == "Succeeded" and not (step and step.failed)
    # A pod that is Failed for a cause of its own: this 0 is a process that ended early on SIGTERM.
    has_cause = pod.phase == "Failed" and (pod.reason or pod.condition("DisruptionTarget").status == "True")
    if succeeded or (step and step.finished and not has_cause):
        return None, of_container(step) if step and step.state == "terminated" else "the pod is Succeeded"
    return None


def _out_of_memory(case: Case) -> Found | None:
    step = case.pod.step
    return (failures.OUT_OF_MEMORY, of_container(step)) if step and step.failed and step.reason == "OOMKilled" else None


def _by_reason(case: Case) -> Found | None:
    pod = case.pod
    if pod.phase != "Failed" or not pod.reason:
        return None
    if failure := failures.BY_POD_REASON.get(pod.reason):
        return failure, of_pod(case.pod)
    # Every other reason is a kubelet's refusal to admit the pod: OutOfcpu, UnexpectedAdmissionError, NodeAffinity ...
    code = pod.step.exit_code if pod.step and pod.step.state == "terminated" else None
    if code is not None and failures.of_signal(code) is None:
        return None  # it had ended by itself before
    had_run = pod.has_run or (case.before is not None and case.before.has_run)
    # A node that came back refuses what it ran.
    return failures.NODE_LOST if had_run else failures.ADMISSION, of_pod(case.pod)


def _disrupted(case: Case) -> Found | None:
    target = case.pod.condition("DisruptionTarget")
    if target.status != "True":
        return None
    has_code = case.pod.step is not None and case.pod.step.exit_code is not None
    failure = disruption(target, is_spot=case.profile.is_spot, is_node_there=has_code and not lost(case.node))
    return failure, with_container(case.pod, of_condition(target))


def _told_to_stop(case: Case) -> Found | None:
    told_at, step = case.pod.told_at(case.profile.grace_s), case.pod.step
    if told_at is None:
        return None
    ended_at = step.ended_at if step else None
    if ended_at and ended_at < told_at - timedelta(seconds=CLOCKS_S):
        return None  # it was over by itself before anybody deleted it
    return failures.PREEMPTED, with_container(case.pod, "the pod was deleted")


def _init_failed(case: Case) -> Found | None:
    if case.pod.step and case.pod.step.state == "terminated" and case.pod.step.reason not in failures.INIT.waiting:
        return None
    failed = [each for each in case.pod.init if each.failed and not each.is_sidecar]
    return (failures.INIT, f"init {of_container(failed[0])}") if failed else None


def _by_exit(case: Case) -> Found | None:
    step = case.pod.step
    if step is None or not step.failed:
        return None
    said = of_container(step)
    if step.reason in failures.INIT.waiting:
        return failures.INIT, said
    if step.is_unknown:
        return failures.NODE_LOST, said
    failure = failures.CODE if step.exit_code is None else failures.of_signal(step.exit_code) or failures.CODE
    return _killed(case, said) if failure is failures.KILLED else (failure, said)


def _killed(case: Case, said: str) -> Found:
    """Decide a SIGKILL that nothing above explains.

    Some runtimes report out of memory as `Error`, so it is the first guess: asking once for more memory is bounded,
    and a code error would fail the run. A node that is being taken away explains it better.
    """
    if event := event_of(case.events):
        return event[0], f"{said}; {event[1]}"
    if away := leaving(case.node):
        return away[0], f"{said}; {away[1]}"
    if sign := lost(case.node):
        return failures.NODE_LOST, f"{said}; {sign}"
    return failures.OUT_OF_MEMORY, f"{said}; nothing else says who killed it"


def _unexplained(case: Case) -> Found | None:
    if event := event_of(case.events):
        return event
    step = case.pod.step
    if step and step.finished:
        return None, of_container(step)
    return failures.NODE_LOST, f"{of_pod(case.pod)}, and nothing says why"


# -- of a pod that is not over --


def _node_lost(case: Case) -> Found | None:
    pod = case.pod
    if pod.phase == "Unknown" or pod.reason == "NodeLost":
        return failures.NODE_LOST, of_pod(case.pod)
    if pod.has_node and (sign := lost(case.node)):
        return failures.NODE_LOST, f"{sign}; the pod was last {pod.phase or 'seen'}"
    is_late = pod.ends_by is not None and case.now >= pod.ends_by + timedelta(seconds=CONFIRM_S)
    if pod.ends_by and is_late and pod.has_node and not case.is_gone:
        until = f"{pod.ends_by:%Y-%m-%dT%H:%M:%SZ}"
        return failures.NODE_LOST, f"the pod was to end by {until}, and no kubelet confirmed it"
    return None


def _not_begun(case: Case) -> Found | None:
    if case.pod.has_run:
        return None
    for failure in FAILURES:
        if waiting := waiting_for(case.pod, failure.waiting):
            return failure, of_waiting(waiting, case.events)
    return _init_failed(case)


def _not_mounted(case: Case) -> Found | None:
    scheduled = case.pod.condition("PodScheduled")
    if case.pod.phase != "Pending" or scheduled.status != "True" or scheduled.since is None:
        return None
    stuck = [(failure, event) for event in case.events for failure in FAILURES if event[0] in failure.stuck_events]
    if stuck and case.now >= scheduled.since + timedelta(seconds=case.profile.schedule_timeout_s):
        failure, (reason, message) = stuck[-1]
        return failure, quoted(f"event {reason}", message)
    return None


def _unschedulable(case: Case) -> Found | None:
    pod, scheduled = case.pod, case.pod.condition("PodScheduled")
    if pod.has_node or pod.phase not in ("Pending", "") or scheduled.reason == "SchedulingGated":
        return None  # a gated pod waits for a queue's admission, not for a node
    created_at = pod.created_at or (case.before.created_at if case.before else None) or scheduled.since
    timeout_s = case.profile.schedule_timeout_s
    if created_at is None or case.now < created_at + timedelta(seconds=timeout_s):
        return None
    tried = [message for reason, message in case.events if reason == "FailedScheduling"]
    said = of_condition(scheduled) if scheduled.kind else "no scheduler has looked at the pod"
    said = quoted(said, "" if scheduled.message or not tried else tried[-1])
    return failures.UNSCHEDULABLE, f"no node after {timeout_s:g} s: {said}"


# -- of a pod that answers 404, over or not --


def _gone(case: Case) -> Found | None:
    if decided := _disrupted(case) or event_of(case.events):
        return decided
    if sign := lost(case.node):
        return failures.NODE_LOST, sign
    if away := leaving(case.node):
        return away
    if case.before is None:
        return failures.NODE_LOST, "the pod is gone, and was never seen"
    if case.pod.ends_by:
        return failures.PREEMPTED, "the pod was deleted"
    if not case.pod.has_node:
        return failures.PREEMPTED, "the pod is gone before it had a node"
    return failures.NODE_LOST, f"the pod is gone, last seen {case.pod.phase or 'without a phase'}, and nothing says why"


_OVER: tuple[Rule, ...] = (
    _finished,
    _out_of_memory,
    _by_reason,
    _disrupted,
    _told_to_stop,
    _init_failed,
    _by_exit,
    _unexplained,
)
_LIVE: tuple[Rule, ...] = (_node_lost, _not_begun, _not_mounted, _unschedulable)
