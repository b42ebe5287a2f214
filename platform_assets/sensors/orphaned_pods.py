"""Stop pods whose run is over: nobody else would, and a GPU would be paid for until its deadline.

`kubernetes.orphans` decides which. When somebody is already deleting the pod, they or the step itself record the
attempt.

A pod may also disappear unobserved: its launcher was killed, and no run was launched for the same work again. Such an
attempt was announced; it is settled here by what is left of it, its pod's events and its own last record, otherwise it
would never cost anything.

Only pods that the launcher `kubernetes` started are looked at. Dagster itself takes care of the pods of runs.
"""

from datetime import datetime
from itertools import islice

import dagster as dg
import msgspec

from platform_assets.automation.ownership import product_of
from platform_assets.kubernetes.api import ATTEMPT
from platform_assets.kubernetes.manifest import launch_of
from platform_assets.kubernetes.orphans import LAUNCHER, Plan, StepPods, plan
from platform_assets.kubernetes.pod_status import Pod
from platform_assets.kubernetes.responses import ApiTrouble
from platform_assets.launch import records
from platform_assets.sensors import ticks
from platform_assets.sensors.under_way import ACTIVE
from platform_assets.store.records.attempts import Launch

MOST_RECORDS = 400
"""How many records one tick reads at most; the rest follows in the next tick."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The number of the last record that was read, and by id the launches of attempts that are open."""

    read: int = 0
    open: dict[str, Launch] = msgspec.field(default_factory=dict)


@ticks.Sensor("orphaned_pods", ticks.Whole(dict[str, State], {}), every_s=30)
def watch(tick: ticks.Tick, states: dict[str, State]) -> ticks.Result[dict[str, State]]:
    """Look at the pods and open attempts of this code location's products."""
    settings = tick.store.settings
    if settings.launcher != "kubernetes":
        return ticks.Result(state=states, reason=f"steps run on the launcher {settings.launcher}, not as pods")
    remarks: list[str] = []
    pods = StepPods(settings, remarks.append)
    try:
        all_pods = pods.read()
        lines = [line for pod in all_pods for line in _end_orphan(tick, pods, pod)]
        # Pods are listed before the ledger is read, because an attempt is announced before it has one.
        with_pod = {pod.labels.get(ATTEMPT, "") for pod in all_pods}
        updated = dict(states)
        for name in sorted(tick.products):
            state = states.get(name, State())
            read, launches = state.read, dict(state.open)
            for number, record in islice(tick.store.history(name).attempt_records(read), MOST_RECORDS):
                read = number
                if record.by == records.BY and record.id is not None:
                    launches.pop(record.id, None)
                    if record.reason == records.UNDER_WAY:
                        launches[record.id] = record.launch()
            updated[name] = State(read=read, open=launches)
            alone = [launch for attempt, launch in launches.items() if attempt not in with_pod]
            lines += [line for launch in alone for line in _settle(tick, pods, launch)]
    except ApiTrouble as trouble:
        return ticks.Result(state=states, reason=f"could not look at the pods: {trouble}")
    return ticks.Result(state=updated, reason="; ".join([*lines, *remarks]) or "there are no pods of steps")


def _end_orphan(tick: ticks.Tick, pods: StepPods, pod: Pod) -> list[str]:
    """Stop a pod when its run is over; return a line about it, none when it belongs to another code location."""
    launch = launch_of(pod.annotations)
    if launch is None or launch.product not in tick.products:
        return []
    if pod.ends_by is not None:
        return [f"pod {pod.name}: is already being deleted"]
    now = tick.store.now(launch.product, is_live=True)  # pods live by the wall clock, whatever the product's
    decision = _decide(tick.context.instance, launch, now)
    if decision.action == "end":
        pods.end(pod, launch, decision.reason, now)
    return [f"pod {pod.name}: {decision.reason}{', ended' if decision.action == 'end' else ''}"]


def _settle(tick: ticks.Tick, pods: StepPods, launch: Launch) -> list[str]:
    """Record the end of an attempt that has no pod any more, unless a run may still do that."""
    if launch.launcher != LAUNCHER or launch.product is None:
        return []
    decision = _decide(tick.context.instance, launch, tick.store.now(launch.product, is_live=True))
    if decision.action == "leave":
        return []
    pods.settle(launch)
    return [f"attempt {launch.id} has no pod: {decision.reason}, settled"]


def _decide(instance: dg.DagsterInstance, launch: Launch, now: datetime) -> Plan:
    """Decide what to do about an attempt, by the run that started it."""
    record = instance.get_run_record_by_id(launch.run_id)
    over_for_s = None if record is None or record.end_time is None else now.timestamp() - record.end_time
    status = None if record is None else record.dagster_run.status.value
    alone = plan(status, over_for_s=over_for_s, other=None)
    # All runs under way are read only when they matter: 50 ms per 1,000 runs on SQLite.
    if alone.action == "leave":
        return alone
    # No limit: the run that took a pod over may be older than any number of queued runs. No filter by job or tag: a run
    # that was started by hand for some assets has neither. Any that does not advance keys may train.
    others = (
        run.run_id
        for run in instance.get_runs(dg.RunsFilter(statuses=list(ACTIVE)))
        if run.run_id != launch.run_id and not run.job_name.startswith("advance__")
        if product_of(run, [str(launch.product)]) is not None
    )
    return plan(status, over_for_s=over_for_s, other=next(others, None))
