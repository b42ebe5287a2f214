"""Find pods and Jobs of steps, and end those whose run is over: what the sensor `orphaned_pods` does with a cluster.

A pod outlives its run on purpose: the run that is launched in its place finds it and goes on watching. So a pod is left
alone for a while after its run is over, then asked to stop with time to save its work. Its attempt is recorded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from platform_assets.base.settings import Settings
from platform_assets.kubernetes import pods, watching
from platform_assets.kubernetes.api import ATTEMPT, INDEX, Api
from platform_assets.kubernetes.gang.objects import Gang, Gangs
from platform_assets.kubernetes.gang.verdict import MemberEnding, first_cause
from platform_assets.kubernetes.launcher import OURS, KubernetesLauncher
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.launch import records
from platform_assets.launch.attempt import prepare
from platform_assets.launch.endings import Ending
from platform_assets.launch.profiles import profile
from platform_assets.store.records.attempts import Launch, ProcessLocation

LAUNCHER = KubernetesLauncher.name
OVER = ("SUCCESS", "FAILURE", "CANCELED")
"""Dagster's states of a run that has ended."""
ADOPTED_WITHIN_S = 300.0
"""How long a run that was launched again may take to find the previous run's pod."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a pod, leave it or end it, and why."""

    action: Literal["leave", "end"]
    reason: str


def plan(status: str | None, *, over_for_s: float | None, other: str | None) -> Plan:
    """Decide what to do about a pod.

    Args:
        status: Dagster's, of the run that started the pod; None when that run does not exist.
        over_for_s: for how long that run has been over; None when unknown.
        other: a run of the product that is under way and may have taken the pod over.
    """
    if other is not None:
        return Plan(action="leave", reason=f"run {other} is under way and may have taken it over")
    if status is None:
        return Plan(action="end", reason="its run does not exist")
    if status not in OVER:
        return Plan(action="leave", reason="its run is under way")
    if over_for_s is not None and over_for_s < ADOPTED_WITHIN_S:
        return Plan(action="leave", reason=f"its run is over ({status}); the next run may take it over")
    return Plan(action="end", reason=f"its run is over ({status})")


class StepPods:
    """The pods of steps in a namespace, and the Jobs of those on several nodes, each as one.

    All methods raise `ApiTrouble` while the cluster's API is away.
    """

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        """Keep the connection; `log` takes one line for each request that is repeated."""
        self._settings = settings
        # Without patience: the sensors of a deployment are evaluated in turn, and the next tick looks again.
        self._api = Api(settings.namespace, patience_s=0.0, log=log)
        self._gangs = Gangs(settings.namespace, patience_s=0.0, log=log)

    def read(self) -> list[Pod]:
        """Return all of them."""
        return self._gangs.pods(OURS)

    def end(self, pod: Pod, launch: Launch, reason: str, now: datetime) -> None:
        """Record how the attempt ended, or that it is ended now; then delete the pod, with time to save its work."""
        size = profile(launch.profile)
        if isinstance(pod, Gang):
            members = {
                int(member.labels.get(INDEX, "0")): MemberEnding(ending=ended, pod=member)
                for member in self._gangs.members.pods({ATTEMPT: pod.labels[ATTEMPT]})
                if (ended := pods.ending(member, now=now, profile=size)) is not None
            }
            ending = first_cause(members, size.nodes)[1] if members else None
        else:
            ending = pods.ending(pod, now=now, profile=size)
        records.write(
            prepare(self._settings.root, launch),
            ending or Ending(failure=None, evidence=f"it was ended because {reason}", ended_at=now),
            ProcessLocation(host=pod.name, node=pod.node or None),
            pod.began_at if isinstance(pod, Gang) else pod.step.started_at if pod.step else None,
            # One that is at work has no ending of its own.
            reason="cancelled" if ending is None else None,
        )
        (self._gangs if isinstance(pod, Gang) else self._api).delete(pod.name)

    def settle(self, launch: Launch) -> None:
        """Record the end of an attempt that has no pod any more, by what is left of it."""
        watching.settle(self._api, prepare(self._settings.root, launch))
