"""End pods whose run is over: nobody else would, and a GPU would be paid for until its deadline.

Belongs here: pods that `KubernetesLauncher` started. Does not belong here: runs whose process is gone
(`orphaned_steps`), or the pods of runs, which are Dagster's own.

A pod outlives its run on purpose: the run that is launched in its place finds it and goes on watching. So a pod is left
alone for a while after its run is over, then asked to stop with time to save its work. Its attempt is recorded, once:
of a pod that somebody is deleting, whoever asked for it has told, or the step itself does.

A pod may also be gone with nobody who saw it go: its launcher was killed, and no run was launched for the same work
again. Such an attempt was announced; it is settled here by the step's last word, or it would cost nothing for ever.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import dagster as dg

from platform_assets.profiles import profile
from platform_assets.records.attempts import Launch, Place
from resources.launchers import pods, records
from resources.launchers.api import Api
from resources.launchers.endings import Ending
from resources.launchers.kubernetes import ATTEMPT, OURS, KubernetesLauncher
from resources.launchers.pod_status import Pod
from resources.launchers.responses import ApiTrouble
from resources.launchers.step_pod import launch_of
from resources.store import StoreResource
from sensors import episodes, open_attempts, ticks
from sensors.ownership import product_of

ADOPTED_WITHIN_S = 300.0
"""How long a run that was launched again may take to find the pod of the one before."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a pod: leave it, or end it; and why."""

    do: Literal["leave", "end"]
    reason: str


def plan(status: dg.DagsterRunStatus | None, *, over_for_s: float | None, other: str | None) -> Plan:
    """Say what to do about a pod.

    Args:
        status: of the run that started it; None when there is no such run.
        over_for_s: since when that run is over; None when unknown.
        other: a run of the product that is under way and may have taken the pod over.
    """
    if other is not None:
        return Plan(do="leave", reason=f"run {other} is under way and may have taken it over")
    if status is None:
        return Plan(do="end", reason="its run is not known")
    if status not in _OVER:
        return Plan(do="leave", reason="its run is under way")
    if over_for_s is not None and over_for_s < ADOPTED_WITHIN_S:
        return Plan(do="leave", reason=f"its run is over ({status.value}) and the next one may take it over")
    return Plan(do="end", reason=f"its run is over ({status.value})")


_OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@ticks.Sensor(
    "orphaned_pods",
    ticks.Whole(dict[str, open_attempts.State], {}),
    about="Ends pods of steps whose run is over, and records their attempts.",
)
def watch(tick: ticks.Tick, states: dict[str, open_attempts.State]) -> ticks.Seen[dict[str, open_attempts.State]]:
    """Look at pods and open attempts of the products; those of other code locations are none of its business."""
    settings = tick.store.settings
    if settings.launcher != "kubernetes":
        return ticks.Seen(state=states, reason=f"steps are started by {settings.launcher}, not as pods")
    api = Api(settings.namespace, patience_s=0.0)
    try:
        found = api.pods(OURS)
        told = [line for pod in found for line in _looked(tick, api, pod)]
    except ApiTrouble as trouble:
        return ticks.Seen(state=states, reason=f"pods could not be looked at: {trouble}")
    there = {pod.labels.get(ATTEMPT, "") for pod in found}
    states = dict(states)
    for name in sorted(tick.products):
        states[name] = open_attempts.seen(tick.store.history(name), states.get(name, open_attempts.State()))
        told += [line for launch in states[name].without_pod(there) for line in _settled(tick, launch)]
    return ticks.Seen(state=states, reason="; ".join(told) or "no pod of a step is there")


def _looked(tick: ticks.Tick, api: Api, pod: Pod) -> list[str]:
    launch = launch_of(pod)
    if launch is None or launch.product not in tick.products:
        return []
    name, now = pod.name, tick.store.now(launch.product, is_live=True)
    if pod.ends_by is not None:
        return [f"pod {name}: it is being ended already"]
    wanted = _wanted(tick.instance, launch, now)
    if wanted.do == "end":
        _end(tick.store, api, pod, launch, wanted.reason, now)
    return [f"pod {name}: {wanted.reason}{', ended' if wanted.do == 'end' else ''}"]


def _settled(tick: ticks.Tick, launch: Launch) -> list[str]:
    """Record the end of an attempt that has no pod any more, unless a run may still do that."""
    if launch.launcher != KubernetesLauncher.name or launch.product is None:
        return []
    wanted = _wanted(tick.instance, launch, tick.store.now(launch.product, is_live=True))
    if wanted.do == "leave":
        return []
    records.settle(tick.store.settings, records.work_of(launch), launch)
    return [f"attempt {launch.id} has no pod: {wanted.reason}, settled"]


def _wanted(instance: dg.DagsterInstance, launch: Launch, now: datetime) -> Plan:
    """Say what to do about an attempt, by the run that began it."""
    found = instance.get_run_record_by_id(launch.run_id)
    over_for_s = None if found is None or found.end_time is None else now.timestamp() - found.end_time
    status = None if found is None else found.dagster_run.status
    alone = plan(status, over_for_s=over_for_s, other=None)
    # All runs under way are read only when the answer decides: 50 ms per 1,000 on SQLite.
    return alone if alone.do == "leave" else plan(status, over_for_s=over_for_s, other=_other(instance, launch))


def _other(instance: dg.DagsterInstance, launch: Launch) -> str | None:
    """Return another run of the product that is under way and may train: any but those that advance its keys."""
    # Without a limit: the run that took a pod over may be older than any number of queued ones. Without a filter by job
    # or tag: a run that was started for assets by hand has neither.
    for run in instance.get_runs(dg.RunsFilter(statuses=list(episodes.ACTIVE))):
        is_other = run.run_id != launch.run_id and not run.job_name.startswith("advance__")
        if is_other and product_of(run, [str(launch.product)]) is not None:
            return run.run_id
    return None


def _end(store: StoreResource, api: Api, pod: Pod, launch: Launch, why: str, now: datetime) -> None:
    """Record how the attempt ended, or that it is ended now; then take the pod away, with its time to save."""
    ending = pods.ending(pod, now=now, profile=profile(launch.profile))
    is_at_work = ending is None
    ending = ending or Ending(failure=None, said=f"it was ended because {why}", ended_at=now)
    records.write(
        store.settings,
        records.work_of(launch),
        launch,
        ending,
        Place(host=pod.name, node=pod.node or None),
        pod.step.started_at if pod.step else None,
        reason="cancelled" if is_at_work else None,
    )
    api.delete(pod.name)
