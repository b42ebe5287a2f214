"""Dagster's storage in the cluster: the same tables as Dagster's own, over few connections, which may break."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import yaml

from resources.cluster_storage import HELD
from tests.doubles import postgres_server
from tests.doubles.postgres_server import PostgresServer

pytestmark = pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)

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


def opened(folder: Path, section: object) -> dg.DagsterInstance:
    folder.mkdir(exist_ok=True)
    content = {"storage": section, "telemetry": {"enabled": False}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return dg.DagsterInstance.from_config(str(folder))


def of_cluster(repository: Path, folder: Path) -> dg.DagsterInstance:
    """Open an instance with the storage of the cluster's file."""
    file = repository / "deploy/kubernetes/base/dagster.yaml"
    return opened(folder, yaml.safe_load(file.read_text(encoding="utf-8"))["storage"])


def of_dagster(repository: Path, folder: Path) -> dg.DagsterInstance:
    """Open an instance with Dagster's own storage in the same database."""
    file = repository / "deploy/kubernetes/base/dagster.yaml"
    return opened(folder, {"postgres": yaml.safe_load(file.read_text(encoding="utf-8"))["storage"]["custom"]["config"]})


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


def test_events_of_many_keys_are_stored_at_once_and_the_same(
    server: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    stored = []
    with of_cluster(repository, tmp_path / "ours") as instance:
        for size in ("500", "0"):
            monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", size)
            run = dg.materialize([keyed], instance=instance, tags=tags).run_id
            events = [str(entry.dagster_event_type) for entry in instance.all_logs(run)]
            of_run = dg.AssetRecordsFilter(asset_key=keyed.key, asset_partitions=["b"])
            (newest,) = instance.fetch_materializations(of_run, limit=1).records
            assert newest.run_id == run
            stored.append((events, newest.asset_materialization.metadata["key"].value))
            assert instance.get_materialized_partitions(keyed.key) == {"a", "b", "c"}
    assert stored[0] == stored[1]


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
