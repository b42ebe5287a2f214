"""The local event log says the same as Dagster's own, whether events come one by one or in batches."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from resources.event_log import LocalEventLog

KEYS = ("a", "b", "c")


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(KEYS), backfill_policy=dg.BackfillPolicy.single_run())
def letters(context) -> dg.MaterializeResult:  # type: ignore[no-untyped-def, type-arg]  # Dagster reads the annotation
    for key in context.partition_keys:
        context.add_asset_metadata({"letter": key}, partition_key=key)
    return dg.MaterializeResult()


def events(home: Path, overrides: dict[str, object]) -> tuple[list[str], dict[str, str]]:
    """Return the types of all events of a range run, and the metadata of each key."""
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides=overrides) as instance:
        job = dg.Definitions([letters], jobs=[dg.define_asset_job("all_letters", [letters])]).resolve_job_def(
            "all_letters"
        )
        tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
        result = job.execute_in_process(instance=instance, tags=tags)
        assert isinstance(instance.event_log_storage, LocalEventLog) is bool(overrides)
        found = instance.fetch_materializations(letters.key, limit=10).records
        told = {str(each.partition_key): str(each.asset_materialization.metadata["letter"].value) for each in found}
        types = [
            entry.dagster_event.event_type_value for entry in instance.all_logs(result.run_id) if entry.dagster_event
        ]
        assert instance.get_materialized_partitions(letters.key) == set(KEYS)
        return sorted(types), told


@pytest.mark.parametrize("batch_size", ["0", "2", "1000"])
def test_batches_are_stored_like_single_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    own = events(tmp_path / "own", {})
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    place = {
        "module": "resources.event_log",
        "class": "LocalEventLog",
        "config": {"dagster_home": str(tmp_path / "ours")},
    }
    assert events(tmp_path / "ours", {"event_log_storage": place}) == own
    assert own[1] == {"a": "a", "b": "b", "c": "c"}
    assert (tmp_path / "ours" / "history" / "runs" / "index.db").exists()


def test_a_batch_that_fails_stores_nothing_of_itself(tmp_path: Path) -> None:
    log = LocalEventLog(str(tmp_path))
    entry = dg.EventLogEntry(
        error_info=None, level=10, user_message="", run_id="11111111-1111-1111-1111-111111111111", timestamp=1.0
    )
    with pytest.raises(AttributeError):
        log.store_event_batch([entry, None])  # type: ignore[list-item]
    assert list(log.get_logs_for_run(entry.run_id)) == []
    log.store_event_batch([entry, entry])
    assert len(log.get_logs_for_run(entry.run_id)) == 2
