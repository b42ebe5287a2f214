"""Find the first cause among the endings of an attempt's pods: by kind, then by time. One pure function.

When one pod of a gang ends, all the others do: their ranks lose a peer, and the Job deletes them. So most endings
only follow from another. What a cluster says about a pod itself comes before what its process says, and that before
what only shows that somebody ended it.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from platform_assets.base import failures
from platform_assets.base.wording import counted
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.launch.endings import Ending
from platform_assets.training.steps.process import EXIT_PEER_LOST

CLOCKS_S = 5.0
"""How far the clocks of two nodes may be apart: causes of one kind that are no further apart are all named."""
TAKEN = (
    *(failures.PREEMPTED, failures.PREEMPTED_BY_QUEUE, failures.CONSOLIDATED),
    *(failures.EVICTED, failures.NODE_LOST, failures.HARDWARE),
)
OF_LIMITS = (failures.OUT_OF_MEMORY, failures.OUT_OF_SHM, failures.OUT_OF_DISK)
HUNG, PEER_LOST, FINISHED = 4, 6, 8
KILLED = 128 + signal.SIGKILL
DISRUPTED = "DisruptionTarget"
LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class MemberEnding:
    """How one pod ended.

    Attributes:
        pod: as it was last seen; None if it never was.
        is_by_job: whether it was asked to stop only after the whole had been given up.
    """

    ending: Ending
    pod: Pod | None
    is_by_job: bool = False


def kind(member: MemberEnding) -> int:
    """Return the number of an ending's kind; the smallest among the pods is the cause.

    0: its node is lost or broken. 1: it was evicted or preempted, as its cluster says. 2: a limit. 3: an error of its
    own, or anything that kept it from beginning. 4: its ranks stood still. 5: somebody ended it, and nothing says who.
    6: its ranks lost a peer. 7: its Job ended it, because of another. 8: it finished.
    """
    ending, failure = member.ending, member.ending.failure
    if failure is None:
        return FINISHED
    if ending.exit_code == EXIT_PEER_LOST and failure is failures.CODE:
        return PEER_LOST
    if failure in (failures.NODE_LOST, failures.HARDWARE):
        return 0
    if failure in TAKEN:
        is_named = failure is not failures.PREEMPTED or (member.pod is not None and _is_disrupted(member.pod))
        return 1 if is_named else 7 if member.is_by_job else 5
    if failure in OF_LIMITS:
        return 2
    if failure is failures.HUNG:
        return HUNG
    if failure is failures.KILLED:
        return 7 if member.is_by_job else 5
    return 3


def _is_disrupted(pod: Pod) -> bool:
    return pod.condition(DISRUPTED).status == "True" or bool(pod.reason)


def first_cause(members: Mapping[int, MemberEnding], size: int) -> tuple[Sequence[int], Ending]:
    """Return which pods are the cause, and the ending of the whole; pods that were never seen do not count.

    Args:
        members: by number, at least one.
        size: how many there should be.
    """
    first = min(kind(member) for member in members.values())
    alike = {number: member.ending for number, member in members.items() if kind(member) == first}
    known = [ending.ended_at for ending in alike.values() if ending.ended_at is not None]
    until = min(known) + timedelta(seconds=CLOCKS_S) if known else None
    causes = [
        number for number, ending in alike.items() if until is None or not ending.ended_at or ending.ended_at <= until
    ]
    if first == FINISHED:
        causes = causes[:1]  # all have finished: one speaks for all
    cause = min(causes, key=lambda number: alike[number].ended_at or LAST)
    failure = alike[cause].failure
    if first == PEER_LOST:
        failure = failures.HUNG if _silent(first, members) else failures.PEERS_LOST
    whole = replace(
        alike[cause],
        failure=failure,
        evidence=_sentence(causes, members, size) if first < FINISHED else f"{counted(size, 'pod')} finished",
        is_final=any(alike[number].is_final for number in causes),
    )
    return causes, _with_times(whole, [member.ending for member in members.values()], size)


def _sentence(causes: Sequence[int], members: Mapping[int, MemberEnding], size: int) -> str:
    """Name the pods that are the cause, with their nodes; those that say the same once.

    Those that said nothing while the others waited for them are named, too.
    """
    said = dict[str, list[int]]()
    for number in causes:
        said.setdefault(members[number].ending.evidence, []).append(number)
    parts = [f"{_named(numbers, members)} of {size}: {evidence}" for evidence, numbers in said.items()]
    if silent := _silent(kind(members[causes[0]]), members):
        parts.append(f"{_named(silent, members)} said nothing, and had to be ended")
    return "; ".join(parts)


def _silent(first: int, members: Mapping[int, MemberEnding]) -> list[int]:
    """Return the pods that the others waited for: those that were asked to end and said nothing.

    One that lost its peers ends by itself, and so does any that can on request: what is left stood still as a whole.
    """
    asked = {number: member.ending.exit_code for number, member in members.items() if kind(member) in (5, 7)}
    if first == PEER_LOST:
        return [number for number, code in asked.items() if code == KILLED]
    return list(asked) if first == HUNG else []


def _named(numbers: Sequence[int], members: Mapping[int, MemberEnding]) -> str:
    return f"pod {' and '.join(_place(number, members[number].ending) for number in numbers)}"


def _place(number: int, ending: Ending) -> str:
    return f"{number} on {ending.node}" if ending.node else f"{number}"


def _with_times(whole: Ending, endings: Sequence[Ending], size: int) -> Ending:
    """Return the ending with when the first pod began and the last ended, and how long a node was paid for."""
    spans = (
        (ending.ended_at - ending.started_at).total_seconds()
        for ending in endings
        if ending.started_at and ending.ended_at
    )
    return replace(
        whole,
        asked_at=min((ending.asked_at for ending in endings if ending.asked_at), default=None),
        started_at=min((ending.started_at for ending in endings if ending.started_at), default=None),
        ended_at=max((ending.ended_at for ending in endings if ending.ended_at), default=None),
        node_s=sum(max(0.0, span) for span in spans) / size,
    )
