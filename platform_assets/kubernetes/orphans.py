"""Find pods and Jobs of steps, and end those whose run is over: what the sensor `orphaned_pods` does with a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.kubernetes import pods, watching
from platform_assets.kubernetes.api import INDEX, Api
from platform_assets.kubernetes.gang.objects import Gang, Gangs
from platform_assets.kubernetes.gang.verdict import MemberEnding, first_cause
from platform_assets.kubernetes.launcher import ATTEMPT, OURS, KubernetesLauncher
from platform_assets.kubernetes.manifest import launch_of
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.launch import records
from platform_assets.launch.attempt import prepare
from platform_assets.launch.endings import Ending
from platform_assets.launch.profiles import profile
from platform_assets.launch.step_profile import StepProfile
from platform_assets.store.records.attempts import Launch, ProcessLocation

LAUNCHER = KubernetesLauncher.name


class CannotLook(Problem):
    """The cluster's API did not answer."""


@dataclass(frozen=True)
class StepPod:
    """A pod that a launcher started, or a Job.

    Attributes:
        attempt: its id; empty if its label is gone.
        launch: what it was started for; None if its annotation cannot be read.
    """

    pod: Pod
    attempt: str
    launch: Launch | None

    @property
    def is_ending(self) -> bool:
        """Whether somebody is already deleting it."""
        return self.pod.ends_by is not None


class StepPods:
    """The pods of steps in a namespace, and the Jobs of those on several nodes, each as one."""

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        """Keep the connection; `log` takes one line for each request that is repeated."""
        self._settings = settings
        self._api = Api(settings.namespace, patience_s=0.0, log=log)
        self._gangs = Gangs(settings.namespace, patience_s=0.0, log=log)

    def __iter__(self) -> Iterator[StepPod]:
        """Read all of them; raise `CannotLook` while the API is away."""
        try:
            found = self._gangs.pods(OURS)
        except ApiTrouble as trouble:
            raise CannotLook(str(trouble)) from None
        return (StepPod(pod, pod.labels.get(ATTEMPT, ""), launch_of(pod.annotations)) for pod in found)

    def end(self, found: StepPod, reason: str, now: datetime) -> None:
        """Record how the attempt ended, or that it is ended now; then delete the pod, with time to save its work."""
        pod, launch = found.pod, found.launch
        assert launch is not None
        try:
            ending = self._ending(pod, now, profile(launch.profile))
        except ApiTrouble as trouble:
            raise CannotLook(str(trouble)) from None
        is_at_work = ending is None
        ending = ending or Ending(failure=None, evidence=f"it was ended because {reason}", ended_at=now)
        records.write(
            prepare(self._settings.root, launch),
            ending,
            ProcessLocation(host=pod.name, node=pod.node or None),
            pod.began_at if isinstance(pod, Gang) else pod.step.started_at if pod.step else None,
            reason="cancelled" if is_at_work else None,
        )
        try:
            (self._gangs if isinstance(pod, Gang) else self._api).delete(pod.name)
        except ApiTrouble as trouble:
            raise CannotLook(str(trouble)) from None

    def _ending(self, pod: Pod, now: datetime, size: StepProfile) -> Ending | None:
        """Return how a pod ended, or a Job by its pods; None for one that is at work."""
        if not isinstance(pod, Gang):
            return pods.ending(pod, now=now, profile=size)
        members = {
            int(member.labels.get(INDEX, "0")): MemberEnding(ending=ending, pod=member)
            for member in self._gangs.members.pods({ATTEMPT: pod.labels[ATTEMPT]})
            if (ending := pods.ending(member, now=now, profile=size)) is not None
        }
        return first_cause(members, size.nodes)[1] if members else None

    def settle(self, launch: Launch) -> None:
        """Record the end of an attempt that has no pod any more, by what is left of it."""
        try:
            watching.settle(self._api, prepare(self._settings.root, launch))
        except ApiTrouble as trouble:
            raise CannotLook(str(trouble)) from None
