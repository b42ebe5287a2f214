"""Note every failed run in its product's ledger, and call a person once for the same trouble.

Belongs here: what a failure is called. Does not belong here: trying again (`landings`, `retrain`). A challenger that
lost, `kept_champion`, ends a run that succeeded, so it never comes here; nor does a run that a person cancelled.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from platform_assets import naming
from platform_assets.records.alerts import FAILURES, Failure
from platform_assets.specs.base import ProductSpec
from resources.alerts import AlertsResource, episode_id
from resources.store import StoreResource
from sensors.ownership import product_of

MAX_ERROR = 500
MOST_FAILURES = 20
"""How many failures one tick notes, and among how many it looks for one that it noted before."""
OF_THE_ALERT = ("job", "run_id", "first", "last", "step", "error", "attempt", "sensor")
PARTITION_TAGS = (
    ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"),
    ("dagster/partition", "dagster/partition"),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to note of a failed run.

    Attributes:
        record: of the ledger.
        alert_id: one for the same job, range and error.
        text: of the alert.
    """

    record: Failure
    alert_id: str
    text: str


def plan(job: str, run_id: str, tags: Mapping[str, str], *, step: str | None, error: str, at: datetime) -> Plan:
    """Say what to note of a failed run.

    Args:
        job, run_id, tags: of the run.
        step: the first step that failed; None when the run failed as a whole.
        error: what was said about it; its first line counts.
        at: when it failed.
    """
    keys = next(((tags[first], tags[last]) for first, last in PARTITION_TAGS if first in tags and last in tags), None)
    told = next((line.strip() for line in error.splitlines() if line.strip()), "no reason was given")[:MAX_ERROR]
    span = "" if keys is None else keys[0] if keys[0] == keys[1] else f"{keys[0]} to {keys[1]}"
    record = Failure(
        job=job,
        run_id=run_id,
        first=keys[0] if keys else None,
        last=keys[1] if keys else None,
        step=step,
        error=told,
        attempt=tags.get(naming.TAG_ATTEMPT),
        sensor=tags.get("dagster/sensor_name"),
        at_utc=at.isoformat(),
    )
    # Numbers such as a process's or a run's id differ between two failures that are the same trouble.
    same = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+\b", "#", told)
    where = f" of {span}" if span else ""
    at_step = f" in {step}" if step else ""
    return Plan(
        record=record,
        alert_id=episode_id("failure", job, span or "no keys", same),
        text=f"{job}{where} failed{at_step}: {told}",
    )


def build(specs: Iterable[ProductSpec]) -> dg.SensorDefinition:
    """Return the sensor.

    Not `@run_failure_sensor`: that one goes on to the next run when noting one has failed, and it would be lost.
    """
    names = tuple(spec.name for spec in specs)

    @dg.sensor(
        name="run_failures",
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notes each failed run in its product's ledger and calls a person once for the same trouble.",
    )
    def watch(context: dg.SensorEvaluationContext, store: StoreResource, alerts: AlertsResource) -> dg.SensorResult:
        instance = context.instance
        after = int(context.cursor) if context.cursor and context.cursor.isdecimal() else None
        if after is None:
            newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
            after = newest[0].storage_id if newest else 0
            return dg.SensorResult(skip_reason="failures are noted from now on", cursor=str(after))
        wanted = dg.RunStatusChangeRecordsFilter(event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=after)
        told = []
        for record in instance.fetch_run_status_changes(wanted, limit=MOST_FAILURES, ascending=True).records:
            after = record.storage_id
            told.append(_note(names, instance, record.event_log_entry, store, alerts))
        reason = "; ".join(told) or "no run has failed since"
        return dg.SensorResult(skip_reason=reason, cursor=str(after))

    return watch


def _note(
    names: tuple[str, ...],
    instance: dg.DagsterInstance,
    entry: dg.EventLogEntry,
    store: StoreResource,
    alerts: AlertsResource,
) -> str:
    run = instance.get_run_by_id(entry.run_id)
    if run is None:
        return f"run {entry.run_id} was deleted"
    product = product_of(run, names)
    if product is None:
        return f"run {run.run_id} of {run.job_name} belongs to no product"
    steps = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1).records
    first = steps[0].event_log_entry.dagster_event if steps else None
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    found = plan(
        run.job_name,
        run.run_id,
        run.tags,
        step=first.step_key if first else None,
        error=_error(first) if first else (entry.dagster_event.message if entry.dagster_event else None) or "",
        at=at,
    )
    if all(noted.run_id != run.run_id for _, noted in store.history(product).newest_failures(MOST_FAILURES)):
        store.ledgers(product).of(FAILURES).append(found.record)
    details = found.record.shown(OF_THE_ALERT)
    is_new = alerts.tell(product, found.alert_id, kind="failure", text=found.text, at=at, details=details)
    return f"{found.text} ({'told' if is_new else 'told before'})"


def _error(event: dg.DagsterEvent) -> str:
    """Return what a failed step said: the innermost cause, for the outer ones are Dagster's own."""
    data = event.step_failure_data
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return event.message or ""
    kind, _, said = error.message.partition(": ")
    name = kind.rpartition(".")[2]
    return said if name.endswith("Failure") and said else f"{name}: {said}" if said else error.message
