"""Watch the pods of a Job to the end of each, and say how the whole ended.

When one pod has ended, the others follow: the Job ends them, or this module where the Job sees no failure, as on a
node that is silent or full. The first cause is judged once each pod's end is known, because what is seen first is
often only what follows from it: a node is known to be lost long after the others have missed it.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec

from platform_assets.base import failures
from platform_assets.base.wording import counted
from platform_assets.kubernetes import pods, watching
from platform_assets.kubernetes.api import ATTEMPT, INDEX, Answer
from platform_assets.kubernetes.evidence import quote, quote_condition
from platform_assets.kubernetes.gang.objects import Gang, Gangs
from platform_assets.kubernetes.gang.verdict import MemberEnding, first_cause
from platform_assets.kubernetes.pod_status import Condition, Node, Pod
from platform_assets.kubernetes.responses import FULL, SOON
from platform_assets.kubernetes.step_log import StepLog
from platform_assets.kubernetes.watching import Heartbeats, PodWatch
from platform_assets.launch import records
from platform_assets.launch.attempt import LAST_LINES, Launched, Observation
from platform_assets.launch.endings import Ending

NO_POD = "FailedCreate"
"""The reason of a Job's event: one of its pods could not be created."""
PASSING = re.compile(f"{SOON.pattern}|{FULL.pattern}", re.IGNORECASE)
"""Messages about a pod that could not be created now, and may be in a moment."""
EVICTED, OUT_OF_TIME = "Evicted", "PodsReadyTimeout"
"""The condition of Kueue's workload that has lost its place, and the reason where its pods were not ready in time."""


@dataclass
class Member:
    """One pod of a gang, as far as it was seen.

    Attributes:
        pod: the newest status.
        is_gone: whether the API no longer has it.
        node: its node, if that may be read.
        ending: None while it goes on.
        observation: its lines.
    """

    pod: Pod
    is_gone: bool = False
    node: Node | None = None
    ending: Ending | None = None
    observation: Observation = field(default_factory=Observation)


def watch(gangs: Gangs, launched: Launched, logs: ExitStack, *, poll_s: float) -> Ending:
    """Follow a gang to its end, and forward the lines of its pods; delete it once one of them has failed."""
    labels = {"label_selector": f"{ATTEMPT}={launched.prepared.labels[ATTEMPT]}"}
    with PodWatch(gangs.members, labels) as changes:
        return _Watched(gangs, launched, changes, logs).to_the_end(poll_s)


class _Watched:
    """A gang, and what was seen of it.

    Attributes:
        members: by number.
        cause: the ending of the whole, where it does not come from one of its pods.
        is_stopped: whether it was deleted.
        given_up_at: when its Job had failed, or was deleted here, by the API's clock; None while it goes on.
    """

    def __init__(self, gangs: Gangs, launched: Launched, changes: PodWatch, logs: ExitStack) -> None:
        self.gangs, self.launched, self.changes, self.logs = gangs, launched, changes, logs
        self.members: dict[int, Member] = {}
        self.cause: Ending | None = None
        self.is_stopped = False
        self.given_up_at: datetime | None = None
        self.heartbeats = Heartbeats(launched)

    def to_the_end(self, poll_s: float) -> Ending:
        while True:
            answer = self.gangs.pod(self.launched.prepared.name)
            assert answer.pod is None or isinstance(answer.pod, Gang)
            if self.given_up_at is None and answer.pod is not None:
                self.given_up_at = answer.pod.failed.since
            self._look(answer.now)
            if self.cause is None and not self.is_stopped:
                self.cause = self._of_the_whole(answer.pod, answer.now)
            judged = [member for member in self.members.values() if member.ending is not None]
            has_failed = any(member.ending and member.ending.failure for member in judged)
            # Where all that failed did so by itself, the Job ends the others: what failed stays until it is on record.
            has_to_end = self.cause is not None or (has_failed and not all(member.pod.is_over for member in judged))
            if has_to_end and answer.pod is not None and not self.is_stopped:
                self.is_stopped = self.gangs.delete(answer.pod.name)
                self.given_up_at = self.given_up_at or answer.now
            for member in judged:
                is_lost = member.ending is not None and member.ending.failure is failures.NODE_LOST
                if is_lost and not member.is_gone and not member.pod.is_over:
                    self.gangs.members.delete(member.pod.name, grace_s=0)  # no kubelet would end it
            is_over = self.cause is not None or answer.pod is None or self.is_stopped or bool(answer.pod.failed.kind)
            has_all = len(self.members) == self.launched.size.nodes or is_over
            if has_all and all(member.ending for member in self.members.values()):
                return self._ending(answer.now)
            self.changes.wait(poll_s)
            self.launched.request.pause(0)

    def _look(self, now: datetime) -> None:
        """Note what the API shows of each pod and of the whole attempt, and judge each pod that has not ended."""
        found = {pod.name: pod for pod in self.gangs.members.pods({ATTEMPT: self.launched.prepared.labels[ATTEMPT]})}
        seen = dict(self.changes.statuses)  # a copy: the thread of the watch adds to it
        for pod in [*(status for name, status in seen.items() if name not in found), *found.values()]:
            number = int(pod.labels.get(INDEX, "0"))
            member = self.members.setdefault(number, Member(pod=pod))
            if member.pod.name != pod.name:
                times = pod.created_at, member.pod.created_at
                if self.cause is None and times[0] and times[1] and times[0] > times[1]:
                    evidence = f"pod {number} was started a second time, as {pod.name} after {member.pod.name}"
                    self.cause = Ending(failure=failures.CODE, evidence=evidence, is_final=True)
                continue
            member.pod = pod
            if pod.has_run and member.observation.asked_at is None:
                member.observation.asked_at = pod.created_at
                named = replace(self.launched, prepared=replace(self.launched.prepared, name=pod.name))
                log = StepLog(self.gangs.members, replace(named, observation=member.observation))
                self.logs.enter_context(log)
        for member in self.members.values():
            member.is_gone = member.pod.name not in found
            if member.pod.node:
                member.node = self.gangs.node(member.pod.node) or member.node
            if member.ending is None and (ending := self._judge(member, now)) is not None:
                member.ending = self._completed(member, ending, now)
        observation = self.launched.observation
        shown = [self.members[number].pod for number in sorted(self.members)]
        began = [pod.step.started_at for pod in shown if pod.step and pod.step.started_at]
        observation.started_at = min(began, default=observation.started_at)
        observation.asked_at = min((pod.created_at for pod in shown if pod.created_at), default=observation.asked_at)
        if first := self.members.get(0):
            observation.last_lines = first.observation.last_lines
            node = first.pod.node or observation.location.node
            observation.location = msgspec.structs.replace(observation.location, node=node)
            waiting = [pod.condition("PodScheduled").message for pod in shown if not pod.has_node]
            self.launched.note_wait("for nodes", next(iter(waiting), ""))

    def _judge(self, member: Member, now: datetime) -> Ending | None:
        """Return how a pod ended; None while it goes on, or waits for a node while others of its gang have theirs."""
        size, pod = self.launched.size, member.pod
        given = None if member.is_gone else pod
        is_running = given is not None and pod.has_run and not pod.is_over
        events = [] if is_running else self.gangs.members.events(pod.name, pod.node)
        ending = pods.ending(given, now=now, profile=size, events=events, node=member.node, last_seen=pod)
        if ending is None or pod.is_over or member.is_gone:
            return ending
        if ending.failure is failures.UNSCHEDULABLE and any(item.pod.has_node for item in self.members.values()):
            return None
        # Ranks go on although the cluster has lost a node of theirs; none does without the others.
        outlives = ending.failure is failures.NODE_LOST and not self.is_stopped and self.heartbeats.show_work(now)
        return None if outlives else ending

    def _completed(self, member: Member, ending: Ending, now: datetime) -> Ending:
        """Complete an ending whose time no status showed; the step's own records are those of the first pod."""
        answer = Answer(pod=None if member.is_gone else member.pod, now=now)
        if member.pod.labels.get(INDEX, "0") == "0":
            return watching.complete(self.launched.prepared, ending, answer, member.pod, member.node)
        if ending.ended_at is not None:
            return ending
        since, signs = watching.silence(member.pod, member.node) or (now, [])
        own = records.own_record(self.launched.prepared)
        if own is not None and own.ended_at_utc and own.reason in ("", records.FINISHED):
            signs = [*signs, datetime.fromisoformat(own.ended_at_utc)]  # no step ends without each of the pods
        return replace(ending, ended_at=max(signs, default=since))

    def _of_the_whole(self, gang: Gang | None, now: datetime) -> Ending | None:
        """Return why the whole is over, or has to end; None where its pods say so."""
        size = self.launched.size
        if gang is None:
            gone = "its Job is gone, and no pod of it was ever seen"
            return None if self.members else Ending(failure=failures.PREEMPTED, evidence=gone, ended_at=now)
        # Kueue preempts by suspending a Job, and would admit the same one again: one attempt stays one object.
        if gang.is_suspended:
            return self._of_queue(gang, now)
        began_at = gang.began_at or gang.created_at
        if gang.failed.kind or gang.ends_by or began_at is None:
            return None
        if len(self.members) < size.nodes:
            events = [event for event in self.gangs.events(gang.name) if event.reason == NO_POD]
            refused = [event.message for event in events if not PASSING.search(event.message)]
            if not refused and now < began_at + timedelta(seconds=size.schedule_timeout_s):
                return None
            said = [*(event.message for event in events), *refused]
            text = f"{len(self.members)} of {counted(size.nodes, 'pod')} could be created"
            evidence = quote(text, said[-1]) if said else text
            return Ending(failure=failures.ADMISSION, evidence=evidence, is_final=bool(refused))
        bound = [member.pod.bound_at for member in self.members.values() if member.pod.bound_at]
        lacking = [number for number, member in self.members.items() if not member.pod.has_node]
        if lacking and bound and now >= min(bound) + timedelta(seconds=size.start_timeout_s):
            scheduled = self.members[lacking[0]].pod.condition("PodScheduled")
            evidence = f"{len(lacking)} of {counted(size.nodes, 'pod')} had no node {size.start_timeout_s:g} s after"
            return Ending(
                failure=failures.INCOMPLETE,
                evidence=f"{evidence} another one had: {quote_condition(scheduled)}",
                ended_at=now,
            )
        return None

    def _of_queue(self, gang: Gang, now: datetime) -> Ending | None:
        """Return the ending of a Job that its queue has evicted, or never admitted."""
        conditions = {item.kind: item for item in self.gangs.of_queue(gang)}
        evicted = conditions.get(EVICTED, Condition())
        if self.members or evicted.status == "True" or records.own_record(self.launched.prepared) is not None:
            is_late = evicted.reason == OUT_OF_TIME
            text = quote_condition(evicted) if evicted.kind else "its Job was suspended"
            return Ending(
                failure=failures.INCOMPLETE if is_late else failures.PREEMPTED_BY_QUEUE,
                evidence=f"its queue took its place away: {text}",
                ended_at=now,
            )
        timeout_s = self.launched.size.queue_timeout_s
        waits = conditions.get("QuotaReserved", Condition())
        self.launched.note_wait("in its queue", waits.message)
        if gang.created_at is None or now < gang.created_at + timedelta(seconds=timeout_s):
            return None
        evidence = quote(f"its queue did not let it in within {timeout_s:g} s", waits.message)
        return Ending(failure=failures.ADMISSION, evidence=evidence, ended_at=now, is_final=True)

    def _ending(self, now: datetime) -> Ending:
        grace_s, observation = self.launched.size.grace_s, self.launched.observation
        endings = {
            number: MemberEnding(
                ending=member.ending,
                pod=member.pod,
                is_by_job=(asked_at := member.pod.stop_requested_at(grace_s)) is not None
                and self.given_up_at is not None
                and asked_at >= self.given_up_at,
            )
            for number, member in self.members.items()
            if member.ending is not None
        }
        if not endings:
            assert self.cause is not None or self.is_stopped
            gone = Ending(failure=failures.PREEMPTED, evidence="its Job is gone", ended_at=now)
            return self.cause or gone
        causes, ending = first_cause(endings, self.launched.size.nodes)
        # The last lines of the attempt are those of the pods that are its cause.
        lines = [line for number in causes for line in self.members[number].observation.last_lines]
        if 0 not in causes and lines:
            observation.last_lines.clear()
            observation.last_lines.extend(lines[-LAST_LINES:])
        if self.cause is None:
            return ending
        times = {name: getattr(ending, name) for name in ("asked_at", "started_at", "ended_at", "node_s")}
        return replace(self.cause, **{name: value for name, value in times.items() if value is not None})
