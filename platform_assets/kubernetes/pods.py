"""Find out from a pod how a try ended: one pure function over what the API shows, for every class of failure.

Once a pod is over, evidence wins in this order (who asked for an eviction or a deletion, events and the node tell):

1. the step's container ended with 0, and the pod is not Failed and no event tells of an eviction: it finished;
2. `OOMKilled`: a step that used up its memory stays the cause even if it was disrupted too; but a runtime counts over a
   container's whole life, so one that another signal ended, or the end of its grace, ended for that;
3. `status.reason`, the kubelet's own verdict; then the condition `DisruptionTarget`, which some evictions carry alone,
   or Kueue's `TerminationTarget`;
4. a deletion that was requested before it ended;
5. an init container, or a container that never started; then signals and exit codes, read together with the step's
   last words, with events and with the node's conditions; then events.

A pod that waits is over when what it waits for cannot come, or did not come in time: an image, a container, a node, the
end of a queue. A pod with a running container is over only when its node is lost, or when its grace period passed and
nobody confirmed its end. Only times of the same clock are compared: container times with container times, and creation
and deletion with `now`, which the caller takes from the API server's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from platform_assets.base import failures
from platform_assets.base.failures import FAILURES, TAKERS, Failure
from platform_assets.base.wording import one_line
from platform_assets.kubernetes import evidence
from platform_assets.kubernetes.manifest import UNREACHABLE_S
from platform_assets.kubernetes.pod_status import Container, Event, Node, Pod, read_pod
from platform_assets.launch.endings import Ending
from platform_assets.launch.profiles import StepProfile

CONFIRM_S = 60.0
"""A live kubelet confirms an end within seconds of the grace period; after this the node counts as lost."""
CLOCKS_S = 5.0
"""How far a node's clock may be behind the API server's before an end looks earlier than the request for it."""
SILENCE_S = UNREACHABLE_S / 2
"""How long a node may be silent before its pod counts as lost: a partition that heals sooner costs nothing."""
PULL_TRIES = 2
PULL_TRIES_S = 30.0
"""By when a kubelet has tried a pull twice, after 0 and 24 s, where its events cannot be read."""
PULL_PATIENCE_S = 180.0
"""How long a registry may be busy or silent. After an outage of 30 s a kubelet's next try comes after 67 to 78 s."""
GATED = "SchedulingGated"
OOM_KILLED, SIGKILLED = "OOMKilled", 137
TOLD_BY_STEP = tuple(failure for failure in failures.FAILURES if failure.is_told_by_step)
SIDECAR_RESTARTS = 2
"""A native sidecar may fail twice before the step begins: what it needs may be there a moment later."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything known when an ending is judged."""

    pod: Pod
    is_gone: bool
    before: Pod | None
    node: Node | None
    events: Sequence[Event]
    now: datetime
    profile: StepProfile

    @property
    def started_at(self) -> datetime | None:
        """When the step's container started, as its pod shows it or last showed it, or as its events say."""
        shown = (pod.step.started_at for pod in (self.pod, self.before) if pod and pod.step and pod.step.started_at)
        return next(shown, None) or evidence.started_at(self.events)

    def is_past(self, since: datetime | None, seconds: float) -> bool:
        """Return whether so many seconds have passed since a moment that is known."""
        return since is not None and self.now >= since + timedelta(seconds=seconds)


Finding = tuple[Failure | None, str]
Rule = Callable[[Case], Finding | None]


def ending(
    pod: Pod | None,
    *,
    now: datetime,
    profile: StepProfile,
    events: Sequence[Event] = (),
    node: Node | None = None,
    last_seen: Pod | None = None,
) -> Ending | None:
    """Return how a try ended; None while it goes on.

    Args:
        pod: None if the API answers 404.
        now: by the API server's clock.
        profile: of the try.
        events: about the pod and its node; they count only where the pod itself shows too little.
        node: of the pod; None if it was not read.
        last_seen: the newest answer before this one; the evidence if `pod` is None.
    """
    current = pod or last_seen or read_pod(None)
    created_at = current.created_at
    # A node has events that are older than the pod.
    events = [event for event in events if not (created_at and event.last_at and event.last_at < created_at)]
    case = Case(pod=current, is_gone=pod is None, before=last_seen, node=node, events=events, now=now, profile=profile)
    rules = _OVER if current.is_over else _LIVE
    findings = (rule(case) for rule in ((*rules, _gone) if case.is_gone else rules))
    if (finding := next(filter(None, findings), None)) is None:
        return None
    failure, text = _taken(case, *finding)
    step, began_at = case.pod.step or Container(), case.started_at
    ended_at = step.ended_at
    if began_at and ended_at and ended_at < began_at:
        began_at = ended_at = None  # its node's clock was set back in between
    code = 0 if failure is None and step.exit_code is None else step.exit_code
    return Ending(
        failure=failure,
        evidence=one_line(f"{text}; the pod is gone" if case.is_gone and "gone" not in text else text),
        exit_code=code if step.reason not in failures.INIT.waiting else None,
        node=case.pod.node or (case.before.node if case.before else ""),
        limit_gb=evidence.limit_gb(case.pod.message or text) if failure is failures.OUT_OF_DISK else None,
        asked_at=case.pod.created_at or (case.before.created_at if case.before else None),
        started_at=began_at,
        ended_at=ended_at,
        is_final=_is_final(case, failure, text),
    )


def _taken(case: Case, failure: Failure | None, text: str) -> Finding:
    """Return the finding with who took the pod away, if the pod itself does not show it and it was one of `TAKERS`."""
    pod, step = case.pod, case.pod.step or Container()
    if failure not in (failures.PREEMPTED, failures.EVICTED) or pod.reason:
        return failure, text
    if pod.condition("DisruptionTarget").reason in failures.BY_DISRUPTION:
        return failure, text
    taker = evidence.classify_event(case.events, step.started_at, step.ended_at, among=TAKERS)
    taker = taker or evidence.classify_node(case.node)
    return (taker[0], f"{text}; {taker[1]}") if taker and taker[0] in TAKERS else (failure, text)


def _is_final(case: Case, failure: Failure | None, text: str) -> bool:
    """Return whether another try is useless: a refused or unknown image, a gate that stays, a limit that is not ours.

    Volumes with a limit, other than `/dev/shm`, were added to the pod by others.
    """
    if failure is failures.OUT_OF_DISK:
        return evidence.OF_VOLUME in text
    if failure is failures.IMAGE:
        return evidence.is_refused(evidence.find_waiting(case.pod, failures.IMAGE.waiting) or Container(), case.events)
    return failure is failures.ADMISSION and case.pod.condition("PodScheduled").reason == GATED


# -- rules for a pod that is over --


def _finished(case: Case) -> Finding | None:
    pod, step = case.pod, case.pod.step
    succeeded = pod.phase == "Succeeded" and not (step and step.failed)
    # If the pod is Failed for a cause of its own, this 0 is a process that ended early on SIGTERM.
    has_cause = pod.phase == "Failed" and (pod.reason or pod.condition("DisruptionTarget").status == "True")
    if succeeded or (step and step.finished and not has_cause):
        if step and (eviction := _evicted_by_event(case, step)):
            return eviction
        return None, evidence.quote_container(step) if step and step.state == "terminated" else "the pod is Succeeded"
    return None


def _evicted_by_event(case: Case, step: Container) -> Finding | None:
    finding = evidence.classify_event(evidence.evictions(case.events), step.started_at, step.ended_at)
    return (finding[0], f"{evidence.quote_container(step)}; {finding[1]}") if finding else None


def _out_of_memory(case: Case) -> Finding | None:
    pod, step = case.pod, case.pod.step
    if step is None or not step.failed or step.reason != OOM_KILLED or not failures.may_lack_memory(step.exit_code):
        return None
    requested_at, tolerance = pod.stop_requested_at(case.profile.grace_s), timedelta(seconds=CLOCKS_S)
    if step.exit_code == SIGKILLED and requested_at and pod.ends_by and step.ended_at:
        had_grace = requested_at + tolerance < step.ended_at
        if had_grace and abs(step.ended_at - pod.ends_by) <= tolerance:
            return None  # killed at the end of its grace
    return failures.OUT_OF_MEMORY, evidence.quote_container(step)


def _by_reason(case: Case) -> Finding | None:
    pod = case.pod
    if pod.phase != "Failed" or not pod.reason:
        return None
    if failure := failures.BY_POD_REASON.get(pod.reason):
        # Evicted by pressure on its node a pod has this condition, and for a limit of its own it has none.
        is_disrupted = pod.condition("DisruptionTarget").status == "True"
        is_own = failure is failures.EVICTED and not is_disrupted
        return evidence.classify_eviction(pod.message) if is_own else failure, evidence.quote_pod(pod)
    # Any other reason is a kubelet's refusal to admit the pod: OutOfcpu, UnexpectedAdmissionError, NodeAffinity ...
    code = pod.step.exit_code if pod.step and pod.step.state == "terminated" else None
    if code is not None and failures.of_signal(code) is None:
        return None  # it had already ended by itself
    had_run = pod.has_run or (case.before is not None and case.before.has_run)
    # A node that came back refuses what it had been running.
    refusal = failures.HARDWARE if evidence.has_words(failures.HARDWARE, pod.message) else failures.ADMISSION
    return failures.NODE_LOST if had_run else refusal, evidence.quote_pod(pod)


def _disrupted(case: Case) -> Finding | None:
    targets = (case.pod.condition(kind) for kind in ("DisruptionTarget", "TerminationTarget"))
    target = next((target for target in targets if target.status == "True"), None)
    if target is None:
        return None
    has_code = case.pod.step is not None and case.pod.step.exit_code is not None
    failure = evidence.classify_disruption(
        target,
        is_departing=case.profile.is_spot or evidence.classify_node(case.node) is not None,
        is_node_there=has_code and not evidence.node_loss(case.node),
    )
    return failure, evidence.with_container(case.pod, evidence.quote_condition(target))


def _asked_to_stop(case: Case) -> Finding | None:
    stop_requested_at, step = case.pod.stop_requested_at(case.profile.grace_s), case.pod.step
    if stop_requested_at is None:
        return None
    ended_at = step.ended_at if step else None
    if ended_at and ended_at < stop_requested_at - timedelta(seconds=CLOCKS_S):
        return None  # it had ended by itself before it was deleted
    return failures.PREEMPTED, evidence.with_container(case.pod, "the pod was deleted")


def _init_failed(case: Case) -> Finding | None:
    """Explain a step that never began by its init containers; a native sidecar is started again by its kubelet."""
    pod = case.pod
    if pod.step and pod.step.state == "terminated" and pod.step.reason not in failures.INIT.waiting:
        return None
    failed = [
        container
        for container in pod.init
        # A kubelet counts one that was killed for memory as failed even if it ended with 0, and never starts the step.
        if (container.failed or container.reason == OOM_KILLED)
        and (pod.is_over or not container.is_sidecar or container.restarts >= SIDECAR_RESTARTS)
    ]
    return (failures.INIT, f"init {evidence.quote_container(failed[0])}") if failed else None


def _by_exit(case: Case) -> Finding | None:
    step = case.pod.step
    if step is None or not step.failed:
        return None
    text = evidence.quote_container(step)
    if step.reason in failures.INIT.waiting:
        return failures.HARDWARE if evidence.has_words(failures.HARDWARE, step.message) else failures.INIT, text
    if step.is_unknown:
        return _evicted_by_event(case, step) or (failures.NODE_LOST, text)
    failure = failures.CODE if step.exit_code is None else failures.of_signal(step.exit_code) or failures.CODE
    if failure is failures.PREEMPTED:  # what it said before explains nothing
        return _evicted_by_event(case, step) or (failure, text)
    if (own := evidence.classify_words(step.message, among=TOLD_BY_STEP)) is not None:
        return own, text
    if step.unhealthy:
        return failures.HARDWARE, f"{text}; device {step.unhealthy[0]} is reported as unhealthy"
    is_killed, loss = failure is failures.KILLED, evidence.node_loss(case.node)
    # A step that is stopped may end with any code. Memory that the node ran short of explains a SIGKILL alone.
    explanations = (
        evidence.classify_event(evidence.evictions(case.events), step.started_at, step.ended_at),
        evidence.classify_event(case.events, step.started_at, step.ended_at),
        evidence.classify_node(case.node),
        (failures.NODE_LOST, loss) if loss else None,
        evidence.classify_stop(case.events) if is_killed else None,
    )
    for item in explanations if failure in (failures.KILLED, failures.CODE) else ():
        if item and (is_killed or item[0] is not failures.OUT_OF_MEMORY):
            return item[0], f"{text}; {item[1]}"
    return failure, f"{text}; nothing else shows what killed it" if is_killed else text


def _unexplained(case: Case) -> Finding | None:
    if event := evidence.classify_event(case.events, case.started_at) or evidence.classify_stop(case.events):
        return event
    step = case.pod.step
    if step and step.finished:
        return None, evidence.quote_container(step)
    return failures.NODE_LOST, f"{evidence.quote_pod(case.pod)}, and nothing shows why"


# -- rules for a pod that is not over --


def _node_lost(case: Case) -> Finding | None:
    pod = case.pod
    if pod.phase == "Unknown" or pod.reason == "NodeLost":
        return failures.NODE_LOST, evidence.quote_pod(case.pod)
    if pod.has_node and (sign := _silence(case)):
        return failures.NODE_LOST, f"{sign}; the pod was last {pod.phase or 'seen'}"
    if pod.ends_by and pod.has_node and not case.is_gone and case.is_past(pod.ends_by, CONFIRM_S):
        until = f"{pod.ends_by:%Y-%m-%dT%H:%M:%SZ}"
        return failures.NODE_LOST, f"the pod was to end by {until}, and no kubelet confirmed it"
    return None


def _silence(case: Case) -> str | None:
    """Return the evidence that the pod's node is silent for too long, by the node itself or by the pod's conditions."""
    pod, node = case.pod, case.node
    if (sign := evidence.node_loss(node)) and node:
        since = node.ready.since
        return sign if node.is_gone or since is None or case.is_past(since, SILENCE_S) else None
    if node is None and evidence.is_marked_unreachable(pod):
        ready, target = pod.condition("Ready"), pod.condition("DisruptionTarget")
        if target.status == "True" and target.reason == "DeletionByTaintManager":
            return evidence.quote_condition(target)
        if ready.since is None or case.is_past(ready.since, SILENCE_S):
            return f"{evidence.quote_condition(ready)} while ContainersReady is True, as for a silent node"
    return None


def _not_begun(case: Case) -> Finding | None:
    if case.pod.has_run:
        return None
    for failure in FAILURES:
        if waiting := evidence.find_waiting(case.pod, failure.waiting):
            if failure is failures.IMAGE and not _is_pull_over(case, waiting):
                return None
            is_broken = failure is not failures.IMAGE and evidence.has_words(failures.HARDWARE, waiting.message)
            return failures.HARDWARE if is_broken else failure, evidence.quote_waiting(waiting, case.events)
    return _init_failed(case)


def _is_pull_over(case: Case, waiting: Container) -> bool:
    """Return whether waiting for an image is useless or has lasted long enough; its kubelet tries on and on."""
    pulls = evidence.failed_pulls(case.events)
    if waiting.reason in evidence.NEVER_PULLED or case.is_past(case.pod.bound_at, case.profile.start_timeout_s):
        return True
    if evidence.is_refused(waiting, case.events):
        tries = sum(event.count for event in pulls)
        return tries >= PULL_TRIES or (not pulls and case.is_past(case.pod.bound_at, PULL_TRIES_S))
    first = min((event.first_at for event in pulls if event.first_at), default=None)
    return case.is_past(first, PULL_PATIENCE_S)


def _not_started(case: Case) -> Finding | None:
    timeout_s = case.profile.start_timeout_s
    if case.pod.has_run or not case.is_past(case.pod.bound_at, timeout_s):
        return None
    stuck = [(failure, event) for event in case.events for failure in FAILURES if event.reason in failure.stuck_events]
    if stuck:
        failure, event = stuck[-1]
        return failure, evidence.quote(f"event {event.reason}", event.message)
    failed = [event for event in case.events if event.reason.startswith("Failed") or "NotReady" in event.reason]
    sign = evidence.quote(f"event {failed[-1].reason}", failed[-1].message) if failed else "and nothing shows why"
    is_broken = bool(failed) and evidence.has_words(failures.HARDWARE, failed[-1].message)
    return (
        failures.HARDWARE if is_broken else failures.NOT_STARTED,
        f"the pod has a node and did not start within {timeout_s:g} s: {sign}",
    )


def _unschedulable(case: Case) -> Finding | None:
    pod, scheduled = case.pod, case.pod.condition("PodScheduled")
    if pod.has_node or pod.phase not in ("Pending", ""):
        return None
    created_at = pod.created_at or (case.before.created_at if case.before else None) or scheduled.since
    if scheduled.reason == GATED:  # it waits for admission by a queue, not for a node
        timeout_s = case.profile.queue_timeout_s
        is_late = case.is_past(created_at, timeout_s)
        return (failures.ADMISSION, f"{evidence.quote_condition(scheduled)}; for {timeout_s:g} s") if is_late else None
    timeout_s = case.profile.schedule_timeout_s
    if not case.is_past(created_at, timeout_s):
        return None
    tried = [event.message for event in case.events if event.reason == "FailedScheduling"]
    if not scheduled.kind and not tried:  # nothing says that it lacks room
        return failures.ADMISSION, f"no scheduler has looked at the pod for {timeout_s:g} s"
    text = evidence.quote_condition(scheduled) if scheduled.kind else "the pod shows no condition"
    text = evidence.quote(text, "" if scheduled.message or not tried else tried[-1])
    return failures.UNSCHEDULABLE, f"no node after {timeout_s:g} s: {text}"


# -- for a pod that answers 404, over or not --


def _gone(case: Case) -> Finding | None:
    if (
        finding := _disrupted(case)
        or evidence.classify_event(case.events, case.started_at)
        or evidence.classify_stop(case.events)
    ):
        return finding
    if sign := evidence.node_loss(case.node):
        return failures.NODE_LOST, sign
    if departure := evidence.classify_node(case.node):
        return departure
    if case.before is None:
        return failures.NODE_LOST, "the pod is gone and was never seen"
    if case.pod.ends_by:
        return failures.PREEMPTED, "the pod was deleted"
    if not case.pod.has_node:
        return failures.PREEMPTED, "the pod is gone and never had a node"
    return failures.NODE_LOST, f"the pod is gone, last {case.pod.phase or 'without a phase'}, and nothing shows why"


_OVER: tuple[Rule, ...] = (
    *(_finished, _out_of_memory, _by_reason, _disrupted),
    *(_asked_to_stop, _init_failed, _by_exit, _unexplained),
)
_LIVE: tuple[Rule, ...] = (_node_lost, _not_begun, _not_started, _unschedulable)
