"""Describe failed runs by what Dagster stored about them: product, keys, step and reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets.automation.ownership import product_of
from platform_assets.base import naming
from platform_assets.store.records.alerts import Failure

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

MAX_ERROR = 500
VERIFY = "verify"
"""Verb of the job that fails while a key is held."""
PAGE = 50
"""How many failed runs are read at once; those of other products are among them."""
UNEXPLAINED = "This run has been marked as failed from outside the execution context."
"""Dagster's message for a run that it marks as failed after an engine event with the reason."""
PARTITION_TAGS = (
    ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"),
    ("dagster/partition", "dagster/partition"),
)


def newest(home: Path, product: str) -> Failure | None:
    """Return a product's newest failed run in the storage of a Dagster's home; None without one."""
    from dagster import DagsterEventType, DagsterInstance, RunsFilter

    held = naming.job(VERIFY, product)  # fails while a key is held, which status names itself
    with DagsterInstance.from_config(str(home)) as instance:
        cursor, has_more = None, True
        while has_more:
            page = instance.fetch_run_status_changes(DagsterEventType.RUN_FAILURE, limit=PAGE, cursor=cursor)
            entries = [record.event_log_entry for record in page.records]
            ids = [entry.run_id for entry in entries]
            runs = {run.run_id: run for run in instance.get_runs(RunsFilter(run_ids=ids))} if ids else {}
            for entry in entries:
                run = runs.get(entry.run_id)
                if run is not None and product_of(run, [product]) is not None and run.job_name != held:
                    step, error = cause(instance, run.run_id)
                    at = datetime.fromtimestamp(entry.timestamp, UTC)
                    return record_of(run.job_name, run.run_id, run.tags, step=step, error=error, at=at)
            cursor, has_more = page.cursor, page.has_more
    return None


def record_of(job: str, run_id: str, tags: Mapping[str, str], *, step: str | None, error: str, at: datetime) -> Failure:
    """Return the record of a failed run.

    Args:
        step: the first step that failed; None when the run failed as a whole.
        error: its message; the first line counts.
        at: when it failed.
    """
    keys = next(((tags[first], tags[last]) for first, last in PARTITION_TAGS if first in tags and last in tags), None)
    message = next((line.strip() for line in error.splitlines() if line.strip()), "no error message")[:MAX_ERROR]
    return Failure(
        job=job,
        run_id=run_id,
        first=keys[0] if keys else None,
        last=keys[1] if keys else None,
        step=step,
        error=message,
        attempt=tags.get(naming.TAG_ATTEMPT),
        sensor=tags.get("dagster/sensor_name"),
        at_utc=at.isoformat(),
    )


def cause(instance: dg.DagsterInstance, run_id: str) -> tuple[str | None, str]:
    """Return the first step of a run that failed, and why; no step for a run that ended as a whole."""
    from dagster import DagsterEventType

    for kind in (DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED):
        records = instance.get_records_for_run(run_id, of_type=kind, limit=1).records
        entry = records[0].event_log_entry if records else None
        if entry is not None and entry.dagster_event is not None:
            reason = _reason(entry.dagster_event)
            if reason == UNEXPLAINED:
                # Dagster's launcher, queue or code server wrote why before it marked the run as failed.
                engine = DagsterEventType.ENGINE_EVENT
                events = instance.get_records_for_run(run_id, of_type=engine, limit=PAGE, ascending=False).records
                earlier = (event.event_log_entry for event in events)
                before = [item.dagster_event for item in earlier if item.timestamp <= entry.timestamp]
                reason = next((_reason(event) for event in before if event is not None), reason)
            return entry.step_key, reason
    return None, ""


def _reason(event: dg.DagsterEvent) -> str:
    """Return the message of an event."""
    error = getattr(event.event_specific_data, "error", None)
    return event.message or "" if error is None else reason(error)


def reason(error: SerializableErrorInfo) -> str:
    """Return the message of the innermost cause of an error, because the outer ones are Dagster's own."""
    while error.cause is not None:
        error = error.cause
    kind, _, message = error.message.strip().partition(": ")
    name = kind.rpartition(".")[2]
    return (
        message if name.endswith("Failure") and message else f"{name}: {message}" if message else error.message.strip()
    )
