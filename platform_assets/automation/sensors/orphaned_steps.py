"""Fail runs whose process is gone: after a SIGKILL nobody else would, and they would stay STARTED forever.

This covers runs that are started as processes of this machine. `landings` and `retrain` launch
them again, as after any failure.

A run's log names the process that executes it. A process of that number is the run's own only if it was created before
the log entry; otherwise the number was reused, and the run's process is gone. When in doubt, it counts as alive.

What Dagster does itself: a daemon that was killed resumes an interrupted tick, and with it runs that were created and
not launched (NOT_STARTED); QUEUED runs wait in its queue; `run_monitoring` ends what does not start (after
`start_timeout_seconds`) or does not cancel. Left over are processes that are gone, and runs that are STARTING and whose
launch was interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dagster as dg
import psutil

from platform_assets.automation.ownership import product_of
from platform_assets.automation.sensors import episodes, ticks
from platform_assets.base.wording import counted
from platform_assets.instance.copying_launcher import CopyingLauncher

START_S = 60.0
"""How long a run may be STARTING before its log names a process."""
SLACK_S = 2.0
"""Tolerance between the time of a process and that of a log entry."""
EVENTS_READ = 200
OF_THIS_MACHINE = {dg.DefaultRunLauncher.__name__, CopyingLauncher.__name__}


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that a run's log names.

    Attributes:
        pid: its number.
        logged_at_s: when the log named it, by the wall clock.
    """

    pid: int
    logged_at_s: float


@dataclass(frozen=True, kw_only=True)
class Process:
    """The process that has a number on this machine now.

    Attributes:
        created_at_s: when it was created, by the wall clock.
        is_zombie: whether it has ended and its parent has not noticed.
    """

    created_at_s: float
    is_zombie: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a run: leave it alone, or end it (`fail` or `cancel`); and why."""

    action: Literal["leave", "fail", "cancel"]
    reason: str


def plan(
    status: dg.DagsterRunStatus, workers: Sequence[tuple[Worker, Process | None]], *, starting_s: float | None
) -> Plan:
    """Decide what to do about a run.

    Args:
        workers: the processes that its log names, each with the process that has that number now.
        starting_s: for how long it has been STARTING; None when unknown.
    """
    if any(process is not None and is_same(worker, process) for worker, process in workers):
        return Plan(action="leave", reason="its process is alive")
    if not workers:
        if status is dg.DagsterRunStatus.STARTING and (starting_s is None or starting_s <= START_S):
            return Plan(action="leave", reason="it is starting")
        if status is dg.DagsterRunStatus.STARTED:
            return Plan(action="leave", reason="its log names no process, so it counts as alive")
        reason = f"its log named no process within {START_S:.0f} seconds: the launch was interrupted"
    else:
        reason = "its process is gone: it was killed, or the machine was restarted"
    if status is dg.DagsterRunStatus.CANCELING:
        return Plan(action="cancel", reason=reason)
    return Plan(action="fail", reason=reason)


def is_same(worker: Worker, process: Process) -> bool:
    """Return whether a process is the one that the log named, and runs: it was created before the log entry."""
    return not process.is_zombie and process.created_at_s <= worker.logged_at_s + SLACK_S


@ticks.Sensor(
    "orphaned_steps", ticks.NO_CURSOR, about="Fails local runs whose process is gone, so that they are launched again."
)
def watch(tick: ticks.Tick, _: None) -> ticks.Result[None]:
    """Look at the runs of this code location's products."""
    instance = tick.instance
    if (kind := _launcher(instance)) not in OF_THIS_MACHINE:
        return ticks.Result(state=None, reason=f"runs are started by {kind}, not as processes of this machine")
    lines = []
    active = instance.get_runs(dg.RunsFilter(statuses=list(episodes.LAUNCHED)))
    runs = [run for run in active if product_of(run, tick.products) is not None]
    for run in runs:
        # Processes live by the wall clock, whatever clock the product has.
        decision = _end_orphan(instance, run, now_s=tick.store.now(run.job_name, is_live=True).timestamp())
        if decision.action != "leave":
            lines.append(f"{run.job_name} {run.run_id}: {decision.reason}")
    alive = f"under way and alive: {counted(len(runs), 'run')}" if runs else "no run is under way"
    return ticks.Result(state=None, reason="; ".join(lines) or alive)


def _launcher(instance: dg.DagsterInstance) -> str:
    """Return the name of the class that starts runs, without loading it where it is configured.

    Loading the cluster's imports submodules of kubernetes. If another tick imports the package at the same time,
    Python's import locks may deadlock.
    """
    if not instance.is_persistent:
        return type(instance.run_launcher).__name__
    configured = instance.get_ref().run_launcher_data
    return configured.class_name if configured else dg.DefaultRunLauncher.__name__


def _end_orphan(instance: dg.DagsterInstance, run: dg.DagsterRun, *, now_s: float) -> Plan:
    workers = [(worker, _process(worker.pid)) for worker in _workers(instance, run.run_id)]
    starting_s = None
    if run.status is dg.DagsterRunStatus.STARTING:
        launched_s = instance.get_run_stats(run.run_id).launch_time
        starting_s = None if launched_s is None else now_s - launched_s
    decision = plan(run.status, workers, starting_s=starting_s)
    if decision.action == "leave":
        return decision
    # The run may have ended between reading its status and looking at its process.
    again = instance.get_run_by_id(run.run_id)
    if again is None or again.status is not run.status:
        return Plan(action="leave", reason="its status changed meanwhile")
    if decision.action == "fail":
        instance.report_run_failed(again, f"This run was failed: {decision.reason}.")
    else:
        instance.report_run_canceled(again, f"This run was cancelled: {decision.reason}.")
    return decision


def _workers(instance: dg.DagsterInstance, run_id: str) -> list[Worker]:
    """Return the processes that the run's log names as executing it."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=EVENTS_READ).records
    workers = []
    for record in records:
        event = record.event_log_entry.dagster_event
        metadata = event.engine_event_data.metadata if event is not None else {}
        pid = metadata.get("pid")
        if pid is not None and str(pid.value).isdecimal():
            workers.append(Worker(pid=int(str(pid.value)), logged_at_s=record.event_log_entry.timestamp))
    return workers


def _process(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        return Process(created_at_s=process.create_time(), is_zombie=process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return Process(created_at_s=0.0, is_zombie=False)
