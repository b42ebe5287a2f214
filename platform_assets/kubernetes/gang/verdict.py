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
        pod = member.pod
        is_disrupted = pod is not None and (pod.condition(DISRUPTED).status == "True" or bool(pod.reason))
        is_named = failure is not failures.PREEMPTED or is_disrupted
        return 1 if is_named else 7 if member.is_by_job else 5
    if failure in (failures.OUT_OF_MEMORY, failures.OUT_OF_SHM, failures.OUT_OF_DISK):
        return 2
    if failure is failures.HUNG:
        return HUNG
    if failure is failures.KILLED:
        return 7 if member.is_by_job else 5
    return 3


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
    said = dict[str, list[int]]()  # pods that say the same are named once
    for number in causes:
        said.setdefault(members[number].ending.evidence, []).append(number)
    parts = [f"{_named(numbers, members)} of {size}: {evidence}" for evidence, numbers in said.items()]
    # Those that the others waited for: who loses its peers ends by itself, and so does any that can on request.
    asked = {number: member.ending.exit_code for number, member in members.items() if kind(member) in (5, 7)}
    silent = [number for number, code in asked.items() if first == HUNG or (first == PEER_LOST and code == KILLED)]
    if silent:
        parts.append(f"{_named(silent, members)} said nothing, and had to be ended")
    failure = alike[cause].failure
    if first == PEER_LOST:
        failure = failures.HUNG if silent else failures.PEERS_LOST
    endings = [member.ending for member in members.values()]
    spans_s = [(one.ended_at - one.started_at).total_seconds() for one in endings if one.started_at and one.ended_at]
    whole = replace(
        alike[cause],
        failure=failure,
        evidence="; ".join(parts) if first < FINISHED else f"{counted(size, 'pod')} finished",
        is_final=any(alike[number].is_final for number in causes),
        # From when the first pod began until the last ended; a node was paid for its own pod's time.
        asked_at=min((one.asked_at for one in endings if one.asked_at), default=None),
        started_at=min((one.started_at for one in endings if one.started_at), default=None),
        ended_at=max((one.ended_at for one in endings if one.ended_at), default=None),
        node_s=sum(max(0.0, span_s) for span_s in spans_s) / size,  # their mean, because the price is that of all nodes
    )
    return causes, whole


def _named(numbers: Sequence[int], members: Mapping[int, MemberEnding]) -> str:
    nodes = {number: members[number].ending.node for number in numbers}
    return f"pod {' and '.join(f'{number} on {node}' if node else f'{number}' for number, node in nodes.items())}"
