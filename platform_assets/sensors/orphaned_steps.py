"""Fail runs whose process is gone: after a SIGKILL nobody else would, and they would stay STARTED forever.

This covers runs that are started as processes of this machine; `launch.orphaned_runs` decides. `landings` and `retrain`
launch them again, as after any failure.

What Dagster does itself: a daemon that was killed resumes an interrupted tick, and with it runs that were created and
not launched (NOT_STARTED); QUEUED runs wait in its queue; `run_monitoring` ends what does not start (after
`start_timeout_seconds`) or does not cancel. Left over are processes that are gone, and runs that are STARTING and whose
launch was interrupted.
"""

import dagster as dg

from platform_assets.automation.ownership import product_of
from platform_assets.base.wording import counted
from platform_assets.instance.copying_launcher import PROCESS, CopyingLauncher
from platform_assets.launch.orphaned_runs import Plan, plan, process
from platform_assets.sensors import ticks
from platform_assets.sensors.under_way import LAUNCHED

EVENTS_READ = 200
OF_THIS_MACHINE = {dg.DefaultRunLauncher.__name__, CopyingLauncher.__name__}


@ticks.Sensor("orphaned_steps", ticks.NO_CURSOR, every_s=30)
def watch(tick: ticks.Tick, _: None) -> ticks.Result[None]:
    """Look at the runs of this code location's products."""
    instance = tick.context.instance
    # A configured class is not loaded: the cluster's imports submodules of kubernetes, and Python's import locks may
    # deadlock where another tick imports that package at the same time.
    data = instance.get_ref().run_launcher_data if instance.is_persistent else None
    other = dg.DefaultRunLauncher if instance.is_persistent else type(instance.run_launcher)
    if (kind := data.class_name if data else other.__name__) not in OF_THIS_MACHINE:
        return ticks.Result(state=None, reason=f"runs are started by {kind}, not as processes of this machine")
    lines = []
    active = instance.get_runs(dg.RunsFilter(statuses=list(LAUNCHED)))
    runs = [run for run in active if product_of(run, tick.products) is not None]
    for run in runs:
        # Processes live by the wall clock, whatever clock the product has.
        decision = _end_orphan(instance, run, now_s=tick.store.now(run.job_name, is_live=True).timestamp())
        if decision.action != "leave":
            lines.append(f"{run.job_name} {run.run_id}: {decision.reason}")
    alive = f"under way and alive: {counted(len(runs), 'run')}" if runs else "no run is under way"
    return ticks.Result(state=None, reason="; ".join(lines) or alive)


def _end_orphan(instance: dg.DagsterInstance, run: dg.DagsterRun, *, now_s: float) -> Plan:
    entries = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=EVENTS_READ)
    workers = []
    if named := run.tags.get(PROCESS):  # before the run's log has a line: how long that takes is the machine's affair
        pid, made_at_s = named.split()
        workers.append((float(made_at_s), process(int(pid))))
    for entry in (record.event_log_entry for record in entries.records):
        logged = entry.dagster_event.engine_event_data.metadata.get("pid") if entry.dagster_event else None
        if logged is not None and str(logged.value).isdecimal():
            workers.append((entry.timestamp, process(int(str(logged.value)))))
    starting_s = None
    if run.status is dg.DagsterRunStatus.STARTING:
        launched_s = instance.get_run_stats(run.run_id).launch_time
        starting_s = None if launched_s is None else now_s - launched_s
    decision = plan(run.status.value, workers, starting_s=starting_s)
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
