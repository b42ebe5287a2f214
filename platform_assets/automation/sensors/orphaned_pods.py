"""Stop pods whose run is over: nobody else would, and a GPU would be paid for until its deadline.

A pod outlives its run on purpose: the run that is launched in its place finds it and goes on watching. So a pod is left
alone for a while after its run is over, then asked to stop with time to save its work. Its attempt is recorded once.
When somebody is already deleting the pod, they or the step itself record the attempt.

A pod may also disappear unobserved: its launcher was killed, and no run was launched for the same work again. Such an
attempt was announced; it is settled here by what is left of it, its pod's events and its own last record, otherwise it
would never cost anything.

Only pods that the launcher `kubernetes` started are looked at. Dagster itself takes care of the pods of runs.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import dagster as dg

from platform_assets.automation.ownership import product_of
from platform_assets.automation.sensors import episodes, open_attempts, ticks
from platform_assets.kubernetes.orphans import LAUNCHER, CannotLook, StepPod, StepPods
from platform_assets.store.records.attempts import Launch

ADOPTED_WITHIN_S = 300.0
"""How long a run that was launched again may take to find the previous run's pod."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a pod, leave it or end it, and why."""

    action: Literal["leave", "end"]
    reason: str


def plan(status: dg.DagsterRunStatus | None, *, over_for_s: float | None, other: str | None) -> Plan:
    """Decide what to do about a pod.

    Args:
        status: status of the run that started the pod; None when that run does not exist.
        over_for_s: for how long that run has been over; None when unknown.
        other: a run of the product that is under way and may have taken the pod over.
    """
    if other is not None:
        return Plan(action="leave", reason=f"run {other} is under way and may have taken it over")
    if status is None:
        return Plan(action="end", reason="its run does not exist")
    if status not in _OVER:
        return Plan(action="leave", reason="its run is under way")
    if over_for_s is not None and over_for_s < ADOPTED_WITHIN_S:
        return Plan(action="leave", reason=f"its run is over ({status.value}); the next run may take it over")
    return Plan(action="end", reason=f"its run is over ({status.value})")


_OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@ticks.Sensor(
    "orphaned_pods",
    ticks.Whole(dict[str, open_attempts.State], {}),
    about="Stops pods of steps whose run is over, and records their attempts.",
)
def watch(tick: ticks.Tick, states: dict[str, open_attempts.State]) -> ticks.Result[dict[str, open_attempts.State]]:
    """Look at the pods and open attempts of this code location's products."""
    settings = tick.store.settings
    if settings.launcher != "kubernetes":
        return ticks.Result(state=states, reason=f"steps run on the launcher {settings.launcher}, not as pods")
    remarks: list[str] = []
    pods = StepPods(settings, remarks.append)
    try:
        all_pods = list(pods)
        lines = [line for pod in all_pods for line in _end_orphan(tick, pods, pod)]
        with_pod = {pod.attempt for pod in all_pods}
        updated = dict(states)
        for name in sorted(tick.products):
            state = open_attempts.update(tick.store.history(name), states.get(name, open_attempts.State()))
            updated[name] = state
            lines += [line for launch in state.without_pod(with_pod) for line in _settle(tick, pods, launch)]
    except CannotLook as trouble:
        return ticks.Result(state=states, reason=f"could not look at the pods: {trouble}")
    return ticks.Result(state=updated, reason="; ".join([*lines, *remarks]) or "there are no pods of steps")


def _end_orphan(tick: ticks.Tick, pods: StepPods, orphan: StepPod) -> list[str]:
    """Stop a pod when its run is over; return a line about it, none when it belongs to another code location."""
    launch = orphan.launch
    if launch is None or launch.product not in tick.products:
        return []
    name, now = orphan.pod.name, tick.store.now(launch.product, is_live=True)
    if orphan.is_ending:
        return [f"pod {name}: is already being deleted"]
    decision = _decide(tick.instance, launch, now)
    if decision.action == "end":
        pods.end(orphan, decision.reason, now)
    return [f"pod {name}: {decision.reason}{', ended' if decision.action == 'end' else ''}"]


def _settle(tick: ticks.Tick, pods: StepPods, launch: Launch) -> list[str]:
    """Record the end of an attempt that has no pod any more, unless a run may still do that."""
    if launch.launcher != LAUNCHER or launch.product is None:
        return []
    decision = _decide(tick.instance, launch, tick.store.now(launch.product, is_live=True))
    if decision.action == "leave":
        return []
    pods.settle(launch)
    return [f"attempt {launch.id} has no pod: {decision.reason}, settled"]


def _decide(instance: dg.DagsterInstance, launch: Launch, now: datetime) -> Plan:
    """Decide what to do about an attempt, by the run that started it."""
    record = instance.get_run_record_by_id(launch.run_id)
    over_for_s = None if record is None or record.end_time is None else now.timestamp() - record.end_time
    status = None if record is None else record.dagster_run.status
    alone = plan(status, over_for_s=over_for_s, other=None)
    # All runs under way are read only when they matter: 50 ms per 1,000 runs on SQLite.
    return alone if alone.action == "leave" else plan(status, over_for_s=over_for_s, other=_other(instance, launch))


def _other(instance: dg.DagsterInstance, launch: Launch) -> str | None:
    """Return another run of the product that is under way and may train: any that does not advance its keys."""
    # No limit: the run that took a pod over may be older than any number of queued runs. No filter by job or tag: a run
    # that was started by hand for some assets has neither.
    for run in instance.get_runs(dg.RunsFilter(statuses=list(episodes.ACTIVE))):
        is_other = run.run_id != launch.run_id and not run.job_name.startswith("advance__")
        if is_other and product_of(run, [str(launch.product)]) is not None:
            return run.run_id
    return None
