"""Say what a Dagster instance is doing, whatever its jobs: `driftline doctor dagster`. Rights to read are enough."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from platform_assets.automation import failed_runs
from platform_assets.base import clock

if TYPE_CHECKING:
    import dagster as dg

OPEN = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
MOST_OPEN = 1_000


def lines(instance: dg.DagsterInstance) -> Iterator[str]:
    """Yield when each daemon reported, which run of each state is the oldest, what failed, and the newest ticks."""
    import dagster as dg

    yield "Daemons"
    beats = instance.get_daemon_heartbeats()
    for name in sorted({*beats, *instance.get_required_daemon_types()}):
        beat = beats.get(name)
        yield f"  {name.lower()}: last heard of {_ago(beat.timestamp) if beat else 'never'}"
    yield "Runs"
    for state in OPEN:
        records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus(state)]), limit=MOST_OPEN)
        if records:
            oldest = min(records, key=lambda record: record.create_timestamp)
            run, since = oldest.dagster_run, _ago(oldest.create_timestamp.timestamp())
            yield f"  {state.lower()}: {len(records)}, the oldest of {run.job_name}, created {since} (run {run.run_id})"
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=10):
        run, ended = record.dagster_run, _ago(record.update_timestamp.timestamp())  # when it got this state
        step, error = failed_runs.cause(instance, run.run_id)
        place = f", step {step}" if step else ""
        yield f"  failed: {run.job_name} {ended}{place}: {_first_line(error)} (run {run.run_id})"
    yield "Sensors and schedules"
    # Also sensors that are gone: Dagster keeps their states.
    for kept in sorted(instance.all_instigator_state(), key=lambda kept: kept.instigator_name):
        is_on = "off" if kept.status.value == "STOPPED" else "on"
        tick = next(iter(instance.get_ticks(kept.instigator_origin_id, kept.selector_id, limit=1)), None)
        last = "never evaluated"
        if tick is not None:
            said = failed_runs.reason(tick.error) if tick.error else tick.skip_reason or ""
            last = f"{tick.status.value.lower()} {_ago(tick.timestamp)}" + (f": {_first_line(said)}" if said else "")
        yield f"  {kept.instigator_name}: {is_on}, {last}"


def _ago(moment_s: float) -> str:
    age = timedelta(seconds=max(0, round(clock.wall().timestamp() - moment_s)))
    return f"{age} ago"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no error message")
