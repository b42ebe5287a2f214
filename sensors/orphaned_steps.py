"""Fail runs whose process is gone: after a SIGKILL nobody else would, and they would stay STARTED for ever.

Belongs here: the local half, for runs that Dagster's default launcher starts as processes of this machine. Does not
belong here: launching them again (`landings` and `retrain` do, as after any failure).

A run names the process that executes it in its log. That process is the run's own only when it was made before it said
so: a number that was given to another process since counts as gone. What cannot be told is taken for alive.

What Dagster does itself: a daemon that was killed takes up an interrupted tick, and with it runs that were made and
not launched (NOT_STARTED); QUEUED runs wait in its queue; `run_monitoring` ends what does not start (after
`start_timeout_seconds`) or does not cancel. Left over are processes that are gone, and runs that were announced
(STARTING) and whose launch was never heard of again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dagster as dg
import psutil

from sensors import episodes, ticks
from sensors.ownership import product_of

START_S = 60.0
"""How long a run may be STARTING before a process of it is heard of."""
SLACK_S = 2.0
"""By how much the times of a process and of an event may differ."""
EVENTS_READ = 200


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that a run's log names.

    Attributes:
        pid: its number.
        told_at_s: when it said so, by the wall clock.
    """

    pid: int
    told_at_s: float


@dataclass(frozen=True, kw_only=True)
class Process:
    """What this machine knows of a process number.

    Attributes:
        made_at_s: when the process was made, by the wall clock.
        is_zombie: whether it has ended and its parent has not noticed.
    """

    made_at_s: float
    is_zombie: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a run: leave it alone, or end it as `fail` or `cancel`; and why."""

    do: Literal["leave", "fail", "cancel"]
    reason: str


def plan(
    status: dg.DagsterRunStatus, workers: Sequence[tuple[Worker, Process | None]], *, announced_s: float | None
) -> Plan:
    """Say what to do about a run.

    Args:
        status: of the run.
        workers: the processes that its log names, each with what has that number now.
        announced_s: for how long it has been STARTING; None when unknown.
    """
    if any(process is not None and is_same(worker, process) for worker, process in workers):
        return Plan(do="leave", reason="its process is alive")
    if not workers:
        if status is dg.DagsterRunStatus.STARTING and (announced_s is None or announced_s <= START_S):
            return Plan(do="leave", reason="it is starting")
        if status is dg.DagsterRunStatus.STARTED:
            return Plan(do="leave", reason="its log names no process, so nothing can be told")
        reason = f"no process of it was heard of within {START_S:.0f} seconds: its launch was interrupted"
    else:
        reason = "its process is gone without a word: killed, or the machine was restarted"
    if status is dg.DagsterRunStatus.CANCELING:
        return Plan(do="cancel", reason=reason)
    return Plan(do="fail", reason=reason)


def is_same(worker: Worker, process: Process) -> bool:
    """Tell whether a process is the one that a run named, and runs: it was made before the run named it."""
    return not process.is_zombie and process.made_at_s <= worker.told_at_s + SLACK_S


@ticks.Sensor(
    "orphaned_steps", ticks.NO_CURSOR, about="Fails local runs whose process is gone, so that they are launched again."
)
def watch(tick: ticks.Tick, _: None) -> ticks.Seen[None]:
    """Look at the runs of the products; those of other code locations are none of this sensor's business."""
    instance = tick.instance
    if (kind := _launcher(instance)) != dg.DefaultRunLauncher.__name__:
        return ticks.Seen(state=None, reason=f"runs are started by {kind}, not as processes of this machine")
    told = []
    active = instance.get_runs(dg.RunsFilter(statuses=list(episodes.LAUNCHED)))
    runs = [run for run in active if product_of(run, tick.products) is not None]
    for run in runs:
        # Processes live by the wall clock, whatever the product's.
        found = _look(instance, run, now_s=tick.store.now(run.job_name, is_live=True).timestamp())
        if found.do != "leave":
            told.append(f"{run.job_name} {run.run_id}: {found.reason}")
    alive = f"{len(runs)} runs are under way, all of them alive" if runs else "no run is under way"
    return ticks.Seen(state=None, reason="; ".join(told) or alive)


def _launcher(instance: dg.DagsterInstance) -> str:
    """Return the class that starts runs, by its name alone where that is configured.

    Loading K8sRunLauncher imports submodules of kubernetes. If another tick imports the package at the same time,
    Python's import locks may deadlock.
    """
    if not instance.is_persistent:
        return type(instance.run_launcher).__name__
    configured = instance.get_ref().run_launcher_data
    return configured.class_name if configured else dg.DefaultRunLauncher.__name__


def _look(instance: dg.DagsterInstance, run: dg.DagsterRun, *, now_s: float) -> Plan:
    workers = [(worker, _process(worker.pid)) for worker in _workers(instance, run.run_id)]
    found = plan(run.status, workers, announced_s=_announced_s(instance, run, now_s))
    if found.do == "leave":
        return found
    # Its last words may have come between the two looks.
    again = instance.get_run_by_id(run.run_id)
    if again is None or again.status is not run.status:
        return Plan(do="leave", reason="it went on meanwhile")
    if found.do == "fail":
        instance.report_run_failed(again, f"This run was failed: {found.reason}.")
    else:
        instance.report_run_canceled(again, f"This run was cancelled: {found.reason}.")
    return found


def _workers(instance: dg.DagsterInstance, run_id: str) -> list[Worker]:
    """Return the processes that said in the run's log that they execute it."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=EVENTS_READ).records
    found = []
    for record in records:
        event = record.event_log_entry.dagster_event
        metadata = event.engine_event_data.metadata if event is not None else {}
        pid = metadata.get("pid")
        if pid is not None and str(pid.value).isdecimal():
            found.append(Worker(pid=int(str(pid.value)), told_at_s=record.event_log_entry.timestamp))
    return found


def _process(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        return Process(made_at_s=process.create_time(), is_zombie=process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return Process(made_at_s=0.0, is_zombie=False)


def _announced_s(instance: dg.DagsterInstance, run: dg.DagsterRun, now_s: float) -> float | None:
    if run.status is not dg.DagsterRunStatus.STARTING:
        return None
    launched_s = instance.get_run_stats(run.run_id).launch_time
    return None if launched_s is None else now_s - launched_s
