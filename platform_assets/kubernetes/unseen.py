"""Find out when a process ended, and so what it cost, whose end no status shows: its pod or its node is gone.

What is left is what its cluster and the step itself recorded: events of the pod, the node's last post, the step's
progress.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from platform_assets.base.failures import NODE_LOST
from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import Settings
from platform_assets.kubernetes import pods
from platform_assets.kubernetes.api import Answer, Api
from platform_assets.kubernetes.evidence import is_marked_unreachable
from platform_assets.kubernetes.pod_status import Node, Pod
from platform_assets.launch import profiles, records
from platform_assets.launch.endings import Ending
from platform_assets.launch.names import name_of
from platform_assets.store.records.attempts import Launch
from platform_assets.store.records.leases import BEAT_S, TTL_S

CUT_SHORT = timedelta(seconds=2)
"""A kubelet gives the process of a pod that was deleted without grace this long."""
FRESH = timedelta(seconds=60)
"""A node that posts its status less often says nothing about when it ended. By default a kubelet posts every 5 minutes
while nothing changes."""
KILLING = "Killing"
PROOF_S = 2 * BEAT_S
"""How long a step has to show by another heartbeat that it is at work: clocks of machines are not compared."""
HEARTBEAT_S = TTL_S
"""How long a step counts as at work after a heartbeat: until then its lease keeps any other from the work."""


class Heartbeats:
    """A step's signs of life in the store, which it sends while its cluster has lost contact to it."""

    def __init__(self, settings: Settings, launch: Launch) -> None:
        self._settings, self._launch = settings, launch
        self._newest = ""
        self._until_s = 0.0

    def are_fresh(self) -> bool:
        """Return whether the step is at work, by its own newest record; also while the store cannot be read."""
        try:
            record = records.own_record(self._settings, self._launch)
        except LedgerProblem:
            return True
        if record is None or record.reason:
            return False
        newest = record.ended_at_utc or ""
        if newest != self._newest:
            self._until_s = time.monotonic() + (HEARTBEAT_S if self._newest else PROOF_S)
            self._newest = newest
        return time.monotonic() < self._until_s


def complete(
    settings: Settings, launch: Launch, ending: Ending, answer: Answer, last: Pod | None, node: Node | None
) -> Ending:
    """Complete an ending whose time, or whose cause, no status showed.

    Args:
        answer: by which it was judged.
        last: the pod as it was last seen.
        node: of the pod, if it was read.
    """
    ending = records.explain_kill(settings, launch, ending)
    if ending.ended_at is not None:
        return ending
    if silence := _silence(last, node):
        return records.complete(settings, launch, ending, *silence)
    is_cut_short = answer.pod is None and not (last and last.grace_s)
    until = answer.now + CUT_SHORT if is_cut_short else answer.now
    # Nobody knows when a lost process ended: its own last record counts, if it left one.
    return records.complete(settings, launch, ending, until, [] if ending.failure is NODE_LOST else None)


def _silence(pod: Pod | None, node: Node | None) -> tuple[datetime, list[datetime]] | None:
    """Return since when the cluster has had no contact to a pod's node, and signs of life that show when it ended.

    None where it has contact, or never knew the node. It notices a grace period after the last sign of life.
    """
    if node is None and pod is not None and is_marked_unreachable(pod):
        ready = pod.condition("Ready")
    elif node is not None and node.ready.status == "Unknown":
        ready = node.ready
    else:
        return None
    if ready.since is None:
        return None
    is_fresh = ready.posted_at is not None and ready.since - ready.posted_at <= FRESH
    return ready.since, [ready.posted_at] if is_fresh and ready.posted_at else []


def settle(settings: Settings, api: Api, launch: Launch) -> None:
    """Record the end of an attempt whose pod is gone and was not watched.

    Raises:
        ApiTrouble: the pod's events cannot be read.
    """
    events = api.events(name_of(launch))
    # Without a status the profile decides nothing, and that of the attempt may not exist any more.
    profile = profiles.profile("cpu_small")
    ending = pods.ending(None, now=datetime.now(UTC), profile=profile, events=events)
    assert ending is not None, "a pod that is gone has ended"
    seen = [event.last_at for event in events if event.last_at]
    stopped = [event.last_at + CUT_SHORT for event in events if event.reason == KILLING and event.last_at]
    records.settle(settings, launch, ending, [*seen, *stopped])
