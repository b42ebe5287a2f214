"""Dagster's storage on one machine: the same databases as Dagster's own, whichever class opens them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from sqlite3 import dbapi2

import dagster as dg
import pytest
import yaml
from dagster._core.storage.event_log import SqliteEventLogStorage

from platform_assets.base.settings import Settings
from platform_assets.instance import home
from platform_assets.instance.local_storage import Events

pytestmark = pytest.mark.slow

KEYS = ("a", "b", "c")


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(KEYS), backfill_policy=dg.BackfillPolicy.single_run())
def rows(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    for key in context.partition_keys:
        context.add_asset_metadata({"key": key}, partition_key=key)
    return dg.MaterializeResult()


@pytest.fixture
def ours(settings: Settings) -> Path:
    return home.prepare(settings)


@pytest.fixture
def dagsters(settings: Settings, tmp_path: Path) -> Path:
    """A home in which our storage is turned off."""
    folder = home.prepare(settings.replace(state=tmp_path / "dagsters"))
    config = yaml.safe_load((folder / "dagster.yaml").read_text(encoding="utf-8"))
    config["storage"]["custom"]["config"]["enabled"] = False
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def materialize(instance: dg.DagsterInstance) -> str:
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    result = dg.materialize([rows], instance=instance, tags=tags)
    assert result.success
    return result.run_id


def recorded(instance: dg.DagsterInstance) -> tuple[list[str], list[str], list[object], list[str]]:
    """Return the ids of runs, the types of the events of all runs, metadata of the keys, and the ticks' names."""
    runs = sorted(run.run_id for run in instance.get_runs())
    events = [
        str(event.dagster_event.event_type_value) for run in runs for event in instance.all_logs(run)
        if event.dagster_event
    ]  # fmt: skip
    records = instance.fetch_materializations(rows.key, limit=10).records
    values = sorted((str(item.partition_key), item.asset_materialization.metadata["key"].value) for item in records)
    return runs, events, values, sorted(state.name for state in instance.all_instigator_state())


def test_a_prepared_home_uses_it(ours: Path) -> None:
    with dg.DagsterInstance.from_config(str(ours)) as instance:
        assert isinstance(instance.event_log_storage, Events)
        run = materialize(instance)
        runs, events, values, _ = recorded(instance)
    assert runs == [run]
    assert events.count("ASSET_MATERIALIZATION") == events.count("ASSET_MATERIALIZATION_PLANNED") == len(KEYS)
    assert values == [(key, key) for key in KEYS]
    assert (ours / "history" / "runs" / f"{run}.db").exists()


@pytest.mark.costly
@pytest.mark.parametrize("first", ["ours", "dagsters"])
def test_databases_are_read_and_continued_by_dagsters_own_storage_and_the_reverse(
    first: str, ours: Path, dagsters: Path
) -> None:
    """An update finds the runs of before, and so does the version before the update."""
    folders = {"ours": ours, "dagsters": dagsters}
    source, target = folders.pop(first), next(iter(folders.values()))
    with dg.DagsterInstance.from_config(str(source)) as instance:
        materialize(instance)
        before = recorded(instance)
    for name in ("history", "schedules"):
        shutil.copytree(source / name, target / name)
    with dg.DagsterInstance.from_config(str(target)) as instance:
        assert type(instance.event_log_storage) is (SqliteEventLogStorage if first == "ours" else Events)
        assert recorded(instance) == before
        materialize(instance)
        assert len(instance.get_runs()) == 2
        assert instance.get_materialized_partitions(rows.key) == set(KEYS)


@pytest.mark.costly
def test_a_database_has_one_connection_per_thread_and_a_new_one_when_it_is_made_anew(
    ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    connect: Callable[..., object] = dbapi2.connect

    def counted(location: str, **options: object) -> object:
        names.append(Path(location).name)
        return connect(location, **options)

    with dg.DagsterInstance.from_config(str(ours)) as instance:
        first = materialize(instance)
    monkeypatch.setattr(dbapi2, "connect", counted)
    with dg.DagsterInstance.from_config(str(ours)) as instance:
        instance.delete_run(first)
        names.clear()
        run = materialize(instance)
    with dg.DagsterInstance.from_config(str(ours)) as instance:
        assert recorded(instance)[0] == [run]
    assert set(names) == {f"{run}.db"}, "the others are open"
    shutil.rmtree(ours / "history")
    with dg.DagsterInstance.from_config(str(ours)) as instance:
        assert instance.get_runs() == []
        materialize(instance)
        assert len(recorded(instance)[2]) == len(KEYS)


@pytest.mark.costly
def test_a_home_that_was_removed_is_created_again(ours: Path, settings: Settings) -> None:
    """Starting over removes the state while this process remembers its databases."""
    with dg.DagsterInstance.from_config(str(ours)) as instance:
        materialize(instance)
    shutil.rmtree(ours)
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:
        assert recorded(instance) == ([], [], [], [])
        materialize(instance)
        assert instance.get_materialized_partitions(rows.key) == set(KEYS)
