"""Dagster's storage in the cluster: the same tables as Dagster's own, over few connections, which may break."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
import yaml
from dagster._core.instance.runs.run_domain import RunDomain
from sqlalchemy.engine import Connection

from platform_assets.instance.cluster_storage import HELD, Events
from tests.doubles import postgres_server
from tests.doubles.postgres_server import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)]

QUERY = """
SELECT sessions, (SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid())
FROM pg_stat_database WHERE datname = %s
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    with postgres_server.running() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@dg.asset
def rows(context: dg.AssetExecutionContext) -> None:
    for number in range(20):
        context.log.info(f"line {number}")


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]), backfill_policy=dg.BackfillPolicy.single_run())
def keyed(context: dg.AssetExecutionContext) -> None:
    for key in context.partition_keys:
        context.add_asset_metadata({"key": key}, partition_key=key)


@dg.asset_check(asset=keyed)
def is_sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def made_of_all_keys(instance: dg.DagsterInstance) -> str:
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    return dg.materialize([keyed, is_sound], instance=instance, tags=tags).run_id


def opened(folder: Path, section: object) -> dg.DagsterInstance:
    folder.mkdir(exist_ok=True)
    content = {"storage": section, "telemetry": {"enabled": False}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return dg.DagsterInstance.from_config(str(folder))


def of_cluster(repository: Path, folder: Path) -> dg.DagsterInstance:
    file = repository / "deploy/kubernetes/base/dagster.yaml"
    return opened(folder, yaml.safe_load(file.read_text(encoding="utf-8"))["storage"])


def of_dagster(repository: Path, folder: Path) -> dg.DagsterInstance:
    """Open an instance with Dagster's own storage in the same database: ours is turned off."""
    file = repository / "deploy/kubernetes/base/dagster.yaml"
    storage = yaml.safe_load(file.read_text(encoding="utf-8"))["storage"]
    storage["custom"]["config"]["enabled"] = False
    return opened(folder, storage)


def connections(server: PostgresServer) -> tuple[int, int]:
    """Return how many connections were opened so far, and how many are open now, this one left out."""
    database = server.environment()["DAGSTER_PG_DB"]
    place = {"host": server.address, "port": server.port, "dbname": database}
    with closing(psycopg2.connect(**place, user=postgres_server.USER, password=server.password)) as connection:
        cursor = connection.cursor()
        cursor.execute(QUERY, (database, database))
        opened, now = cursor.fetchone()
        return opened, now


def work(instance: dg.DagsterInstance, opened_again: Callable[[], dg.DagsterInstance]) -> list[str]:
    """Run something, read it with 20 further instances, as 20 ticks of sensors would, and return its events."""
    result = dg.materialize([rows], instance=instance)
    for _ in range(20):
        with opened_again() as another:
            assert another.get_run_by_id(result.run_id) is not None
    return [str(event.dagster_event_type) for event in instance.all_logs(result.run_id)]


@pytest.mark.costly
def test_a_run_and_ticks_open_few_connections_and_record_what_dagsters_own_storage_does(
    server: PostgresServer, repository: Path, tmp_path: Path
) -> None:
    with of_cluster(repository, tmp_path / "ours") as instance:
        before, _ = connections(server)
        events = work(instance, lambda: of_cluster(repository, tmp_path / "ours"))
        ours, now = connections(server)
        assert 1 <= now <= HELD
    with of_dagster(repository, tmp_path / "dagsters") as instance:
        assert work(instance, lambda: of_dagster(repository, tmp_path / "dagsters")) == events
        assert instance.get_runs_count() == 2
        everything, _ = connections(server)
    assert ours - before < 10 < 100 < everything - ours


@pytest.mark.costly
def test_events_of_many_keys_are_stored_at_once_and_the_same(
    server: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    with of_cluster(repository, tmp_path / "ours") as instance:
        made_of_all_keys(instance)  # opens the connections
        for size in ("500", "0"):
            monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", size)
            run = made_of_all_keys(instance)
            events = [(str(entry.dagster_event_type), entry.step_key) for entry in instance.all_logs(run)]
            of_run = dg.AssetRecordsFilter(asset_key=keyed.key, asset_partitions=["b"])
            (newest,) = instance.fetch_materializations(of_run, limit=1).records
            assert newest.run_id == run
            (record,) = instance.get_asset_records([keyed.key])
            assert record.asset_entry.last_run_id == run
            (check,) = instance.event_log_storage.get_asset_check_execution_history(is_sound.check_key, limit=1)
            assert (check.run_id, check.status.value) == (run, "SUCCEEDED")
            stored.append((sorted(events), newest.asset_materialization.metadata["key"].value))
            assert instance.get_materialized_partitions(keyed.key) == {"a", "b", "c"}
    assert stored[0] == stored[1]


@pytest.mark.costly
@pytest.mark.parametrize(("size", "statements"), [(500, 3), (0, 4 + 4 + 4)], ids=["at_once", "one_by_one"])
def test_what_a_run_plans_is_stored_by_three_statements(
    size: int,
    statements: int,
    server: PostgresServer,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", str(size))
    executed: list[str] = []
    log, execute = RunDomain._log_asset_planned_events, Connection._execute_context

    def counted(self: RunDomain, *arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "_execute_context", counting)
            log(self, *arguments)

    def counting(self: Connection, dialect: Any, constructor: Any, statement: Any, *others: Any, **options: Any) -> Any:
        executed.append(str(statement).split(maxsplit=1)[0])
        return execute(self, dialect, constructor, statement, *others, **options)

    monkeypatch.setattr(RunDomain, "_log_asset_planned_events", counted)
    with of_cluster(repository, tmp_path / "ours") as instance:
        made_of_all_keys(instance)
        executed.clear()
        made_of_all_keys(instance)
    writes = [word for word in executed if word != "SELECT"]
    assert len(writes) == statements, "the events; of three keys and a check; their asset, the check"


@pytest.mark.costly
def test_if_something_planned_cannot_be_stored_nothing_is_and_all_is_stored_one_by_one(
    server: PostgresServer,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    store, calls = Events._store_asset_event, itertools.count()

    def failing(self: Events, *arguments: Any) -> None:
        store(self, *arguments)
        if next(calls) == 0:
            raise OSError("the disk is full")

    monkeypatch.setattr(Events, "_store_asset_event", failing)
    with of_cluster(repository, tmp_path / "ours") as instance:
        run = made_of_all_keys(instance)
        events = [str(entry.dagster_event_type) for entry in instance.all_logs(run)]
        assert instance.get_materialized_partitions(keyed.key) == {"a", "b", "c"}
    for kind, count in (("ASSET_MATERIALIZATION_PLANNED", 3), ("ASSET_CHECK_EVALUATION_PLANNED", 1)):
        assert events.count(f"DagsterEventType.{kind}") == count, kind
    assert "the disk is full" in capfd.readouterr().err


@pytest.mark.costly
def test_a_server_that_was_killed_and_started_again_is_used_again(
    server: PostgresServer, repository: Path, tmp_path: Path
) -> None:
    with of_cluster(repository, tmp_path / "ours") as instance:
        assert dg.materialize([rows], instance=instance).success
        server.program.process.send_signal(signal.SIGQUIT)
        server.program.process.wait(60)
        server.start_again()
        assert dg.materialize([rows], instance=instance).success
        assert instance.get_runs_count() == 2
