"""Watch a step's pod to its end, and find out when and why it ended, also where nobody and nothing shows that.

The pod is polled. A watch is read too: the last status of a deleted pod is visible for about a second, less than the
pause between two polls; but a watch may be silent for other reasons than that nothing happens.

An end that no status shows, because its pod or its node is gone, is estimated from what its cluster and the step itself
recorded: events of the pod, the node's last post, the step's progress.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec

from platform_assets.base.failures import NODE_LOST
from platform_assets.base.problems import LedgerProblem
from platform_assets.kubernetes import pods
from platform_assets.kubernetes.api import Answer, Api
from platform_assets.kubernetes.evidence import is_marked_unreachable
from platform_assets.kubernetes.pod_status import Node, Pod
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.launch import profiles, records
from platform_assets.launch.attempt import Launched, Prepared
from platform_assets.launch.endings import Ending
from platform_assets.launch.step_profile import ZONE
from platform_assets.store.records.leases import BEAT_S, TTL_S

STREAM_S = 60
"""How long a stream lasts; the next one begins after the last known version, so nothing is missed in between."""
PAUSE_S = 1.0
LAST_S = 2.0
"""How long the last status of a pod that is gone is waited for."""
CUT_SHORT = timedelta(seconds=2)
"""A kubelet gives the process of a pod that was deleted without grace this long."""
FRESH = timedelta(seconds=60)
"""A node that posts its status less often says nothing about when it ended. By default a kubelet posts every 5 minutes
while nothing changes."""
PROOF_S = 2 * BEAT_S
"""How long a step has to show by another heartbeat that it is at work: clocks of machines are not compared."""
HEARTBEAT_S = TTL_S
"""How long a step counts as at work after a heartbeat: until then its lease keeps any other from the work."""


def watch(api: Api, launched: Launched, last: Pod | None, *, poll_s: float) -> Ending:
    """Follow a pod to its end; stop it if it has failed without having ended.

    Args:
        last: the pod as it was last seen.
    """
    prepared, observation = launched.prepared, launched.observation
    node: Node | None = None
    stopped: Ending | None = None
    heartbeats = Heartbeats(launched)
    # With polls alone, 8 of 9 deletions, drains and taints showed no exit code.
    with PodWatch(api, {"field_selector": f"metadata.name={prepared.name}"}) as changes:
        while True:
            answer = api.pod(prepared.name)
            if (pod := answer.pod) is None:
                last = changes.last(prepared.name) or last
            node = _note(api, pod or last, node, launched)
            shown = pod or last
            # Events are many and weak evidence: a step that runs shows enough itself.
            is_running = pod is not None and pod.has_run and not pod.is_over
            events = [] if is_running else api.events(prepared.name, shown.node if shown else "")
            ending = pods.ending(pod, now=answer.now, profile=launched.size, events=events, node=node, last_seen=last)
            last = shown
            is_lost = ending is not None and ending.failure is NODE_LOST
            # A step given up with its silent node was paid for in part, though its checkpoint was the one in use.
            if is_lost and not (pod and pod.is_over) and heartbeats.show_work(answer.now):
                ending, is_lost = None, False  # it goes on without its cluster; its lease is its own
            if stopped and observation.started_at is None and not is_lost:
                ending = stopped  # what it looks like while it is being stopped counts only if it started meanwhile
            if ending is not None and (pod is None or pod.is_over):
                return complete(prepared, ending, answer, last, node)
            if ending is not None and pod is not None and (stopped is None or is_lost):
                # In the judged version: a pod called unschedulable got its GPU, finished, and was recorded at 0 USD.
                if not api.delete(prepared.name, grace_s=0 if is_lost else None, version=pod.version):
                    continue  # it has changed since it was judged
                if is_lost:
                    return complete(prepared, ending, answer, last, node)
                stopped = ending
            changes.wait(poll_s)
            launched.request.pause(0)


def _note(api: Api, newest: Pod | None, node: Node | None, launched: Launched) -> Node | None:
    """Note what a pod shows of its attempt, and return its node."""
    if newest is None:
        return node
    observation = launched.observation
    observation.asked_at = newest.created_at
    if newest.step and newest.step.started_at:
        observation.started_at = newest.step.started_at
    launched.note_wait("for a node", "" if newest.has_node else newest.condition("PodScheduled").message)
    if newest.node:
        node = api.node(newest.node)
        zone, data_zone = node.labels.get(ZONE) if node else None, launched.size.data_zone
        location, is_new = observation.location, observation.location.node != newest.node
        observation.location = msgspec.structs.replace(location, node=newest.node, zone=zone or location.zone)
        if is_new and zone and data_zone and zone != data_zone:
            launched.log.warning(
                f"the step runs in zone {zone} but its data is in {data_zone} (profile {launched.size.name}): all "
                "traffic crosses zones and is charged. To wait for a node there, set data_zone_only."
            )
    return node


def complete(prepared: Prepared, ending: Ending, answer: Answer, last: Pod | None, node: Node | None) -> Ending:
    """Complete an ending whose time, or whose cause, no status showed.

    Args:
        answer: by which it was judged.
        last: the pod as it was last seen.
        node: of the pod, if it was read.
    """
    ending = records.explain_kill(prepared, ending)
    if ending.ended_at is not None:
        return ending
    if silent := silence(last, node):
        return records.complete(prepared, ending, *silent)
    is_cut_short = answer.pod is None and not (last and last.grace_s)
    until = answer.now + CUT_SHORT if is_cut_short else answer.now
    # Nobody knows when a lost process ended: its own last record counts, if it left one.
    return records.complete(prepared, ending, until, [] if ending.failure is NODE_LOST else None)


def silence(pod: Pod | None, node: Node | None) -> tuple[datetime, list[datetime]] | None:
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


def settle(api: Api, prepared: Prepared) -> None:
    """Record the end of an attempt whose pod is gone and was not watched.

    Raises:
        ApiTrouble: the pod's events cannot be read.
    """
    events = api.events(prepared.name)
    # Without a status the profile decides nothing, and that of the attempt may not exist any more.
    profile = profiles.profile("cpu_small")
    ending = pods.ending(None, now=datetime.now(UTC), profile=profile, events=events)
    assert ending is not None, "a pod that is gone has ended"
    seen = [event.last_at for event in events if event.last_at]
    stopped = [event.last_at + CUT_SHORT for event in events if event.reason == "Killing" and event.last_at]
    records.settle(prepared, ending, [*seen, *stopped])


class Heartbeats:
    """A step's signs of life in the store, which it sends while its cluster has lost contact to it."""

    def __init__(self, launched: Launched) -> None:
        self._launched = launched
        self._newest = ""
        self._until_s = 0.0

    def show_work(self, now: datetime) -> bool:
        """Return whether the step is at work, by its own newest record, and before its deadline.

        Also while the store cannot be read.
        """
        began_at = self._launched.observation.started_at
        if began_at is None or (now - began_at).total_seconds() > self._launched.size.deadline_s:
            return False
        try:
            record = records.own_record(self._launched.prepared)
        except LedgerProblem:
            return True
        if record is None or record.reason:
            return False
        newest = record.ended_at_utc or ""
        if newest != self._newest:
            self._until_s = time.monotonic() + (HEARTBEAT_S if self._newest else PROOF_S)
            self._newest = newest
        return time.monotonic() < self._until_s


class PodWatch:
    """The newest statuses of an attempt's pods, as a context: a thread watches them, through streams that break.

    Args:
        only: the client's name of a selector, and the selector of the pods.
        version: of a pod, after which it begins; empty for the pods as they are.

    Attributes:
        statuses: by the pod's name, also the last one of a pod that is gone.
    """

    def __init__(self, api: Api, only: Mapping[str, str], version: str = "") -> None:
        self._api, self._only, self._version = api, only, version
        self._changed, self._ended, self._gone = threading.Event(), threading.Event(), threading.Event()
        self.statuses = dict[str, Pod]()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for a change."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def last(self, name: str) -> Pod | None:
        """Return the last status of a pod that the API does not have any more."""
        if name in self.statuses:
            self._gone.wait(LAST_S)
        return self.statuses.get(name)

    def _watch(self) -> None:
        from urllib3.exceptions import HTTPError

        while not self._ended.is_set():
            try:
                for kind, pod in self._api.changes(self._only, self._version, timeout_s=STREAM_S):
                    if self._ended.is_set():
                        return
                    self._version = pod.version
                    if kind == "BOOKMARK":  # it has a version, and no pod
                        continue
                    self.statuses[pod.name] = pod
                    if kind == "DELETED":
                        self._gone.set()
                    self._changed.set()
            except ApiTrouble as trouble:
                if trouble.status == 410:  # it has no changes since that version any more
                    self._version = ""
            except (HTTPError, OSError, ValueError):
                pass  # cut, perhaps in the middle of a change: begins again after the last whole one
            self._ended.wait(PAUSE_S)
