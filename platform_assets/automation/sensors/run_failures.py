"""Record every failed run in its product's ledger, and raise one alert per distinct failure.

A challenger that lost (`kept_champion`) ends a run that succeeded, and a run that a person cancelled did not fail:
neither gets here. A run of `verify__product` fails because a key is held; the fault
raised an alert already. `landings` and `retrain` launch failed runs again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from platform_assets.automation import failed_runs
from platform_assets.automation.alerting import episode_id
from platform_assets.automation.ownership import product_of
from platform_assets.automation.sensors import ticks
from platform_assets.base import naming
from platform_assets.store.records.alerts import FAILURES, Failure

NEW = -1
"""The cursor before the first tick."""
MOST_FAILURES = 20
"""How many failures one tick records, and among how many it looks for one that it recorded before."""
OF_THE_ALERT = ("job", "run_id", "first", "last", "step", "error", "attempt", "sensor")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to record of a failed run.

    Attributes:
        record: for the ledger.
        alert_id: the same for the same job, range and error.
        text: of the alert.
    """

    record: Failure
    alert_id: str
    text: str


def plan(job: str, run_id: str, tags: Mapping[str, str], *, step: str | None, error: str, at: datetime) -> Plan:
    """Return what to record of a failed run.

    Args:
        step: the first step that failed; None when the run failed as a whole.
        error: its message; the first line counts.
        at: when it failed.
    """
    record = failed_runs.record_of(job, run_id, tags, step=step, error=error, at=at)
    first, last, message = record.first, record.last, record.error
    span = "" if first is None else first if first == last else f"{first} to {last}"
    # Numbers such as a process's or a run's id differ between two failures of the same cause.
    same = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+\b", "#", message)
    where = f" for {span}" if span else ""
    at_step = f" in {step}" if step else ""
    return Plan(
        record=record,
        alert_id=episode_id("failure", job, span or "no keys", same),
        text=f"{job}{where} failed{at_step}: {message}",
    )


# Not `@run_failure_sensor`: it goes on to the next run when recording one has failed, and that failure would be lost.
@ticks.Sensor(
    "run_failures",
    ticks.Whole(int, NEW),
    about="Records each failed run in its product's ledger; raises one alert per distinct failure.",
)
def watch(tick: ticks.Tick, after: int) -> ticks.Result[int]:
    """Record the failures after the event with a number."""
    instance = tick.instance
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
    instance, store = tick.instance, tick.store
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
    failure = plan(run.job_name, run.run_id, run.tags, step=step, error=error, at=at)
    if all(other.run_id != run.run_id for _, other in store.history(product).newest_failures(MOST_FAILURES)):
        store.ledgers(product).of(FAILURES).append(failure.record)
    origin = run.remote_job_origin
    details = failure.record.present(OF_THE_ALERT) | ({"location": origin.location_name} if origin else {})
    is_new = tick.alerts.record(product, failure.alert_id, kind="failure", text=failure.text, at=at, details=details)
    return f"{failure.text} ({'alert raised' if is_new else 'alert raised before'})"
