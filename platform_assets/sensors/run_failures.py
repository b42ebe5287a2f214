"""Record every failed run in its product's ledger, and raise one alert per distinct failure.

A challenger that lost (`kept_champion`) ends a run that succeeded, and a run that a person cancelled did not fail:
neither gets here. A run of `verify__product` fails because a key is held; the fault
raised an alert already. `landings` and `retrain` launch failed runs again.
"""

import re
from datetime import UTC, datetime

import dagster as dg

from platform_assets.automation import failed_runs
from platform_assets.automation.ownership import product_of
from platform_assets.base import naming
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.sensors import ticks
from platform_assets.store.records.alerts import FAILURES, Failure

NEW = -1
"""The cursor before the first tick."""
MOST_FAILURES = 20
"""How many failures one tick records, and among how many it looks for one that it recorded before."""
OF_THE_ALERT = ("job", "run_id", "first", "last", "step", "error", "attempt", "sensor")


def alert_of(record: Failure, location: str | None = None) -> Alert:
    """Return the alert about a failed run of a code location: one id per job, range and error."""
    first, last, step = record.first, record.last, record.step
    span = "" if first is None else first if first == last else f"{first} to {last}"
    # Numbers such as a process's or a run's id differ between two failures of the same cause.
    same = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+\b", "#", record.error)
    where, at_step = f" for {span}" if span else "", f" in {step}" if step else ""
    return Alert(
        id=episode_id("failure", record.job, span or "no keys", same),
        kind=Kind.FAILURE,
        text=f"{record.job}{where} failed{at_step}: {record.error}",
        details=record.present(OF_THE_ALERT) | ({} if location is None else {"location": location}),
    )


# Not `@run_failure_sensor`: it goes on to the next run when recording one has failed, and that failure would be lost.
@ticks.Sensor("run_failures", ticks.Whole(int, NEW), every_s=30)
def watch(tick: ticks.Tick, after: int) -> ticks.Result[int]:
    """Record the failures after the event with a number."""
    instance = tick.context.instance
    if after < 0:
        newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
        return ticks.Result(state=newest[0].storage_id if newest else 0, reason="failures are recorded from now on")
    later = dg.RunStatusChangeRecordsFilter(event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=after)
    lines = []
    for record in instance.fetch_run_status_changes(later, limit=MOST_FAILURES, ascending=True).records:
        after = record.storage_id
        lines.append(_record(tick, record.event_log_entry))
    return ticks.Result(state=after, reason="; ".join(lines) or "no run has failed since")


def _record(tick: ticks.Tick, entry: dg.EventLogEntry) -> str:
    instance, store = tick.context.instance, tick.store
    run = instance.get_run_by_id(entry.run_id)
    if run is None:
        return f"run {entry.run_id} was deleted"
    product = product_of(run, tick.products)
    if product is None:
        return f"run {run.run_id} of {run.job_name} belongs to no product"
    if run.job_name == naming.job(failed_runs.VERIFY, product):
        return f"run {run.run_id} of {run.job_name} failed because a key is held, which has its own alert"
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    step, error = failed_runs.cause(instance, run.run_id)
    failure = failed_runs.record_of(run.job_name, run.run_id, run.tags, step=step, error=error, at=at)
    if all(other.run_id != run.run_id for _, other in store.history(product).newest_failures(MOST_FAILURES)):
        store.ledgers(product).of(FAILURES).append(failure)
    origin = run.remote_job_origin
    alert = alert_of(failure, origin.location_name if origin else None)
    is_new = tick.alerts.record(product, alert, at)
    return f"{alert.text} ({'alert raised' if is_new else 'alert raised before'})"
