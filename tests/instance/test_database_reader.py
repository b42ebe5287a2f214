"""The user of the read-only webserver: it reads what Dagster wrote, and writes nothing."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import yaml
from sqlalchemy.engine import URL

from platform_assets.instance.database_reader import ReaderProblem, reader_of
from tests.doubles import postgres_server
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.rows import row

pytestmark = [pytest.mark.slow, pytest.mark.skipif(postgres_server.binaries() is None, reason=postgres_server.MISSING)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    with postgres_server.running() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def opened(repository: Path, folder: Path) -> dg.DagsterInstance:
    folder.mkdir()
    file = repository / "deploy/kubernetes/base/dagster.yaml"
    content = {"storage": yaml.safe_load(file.read_text(encoding="utf-8"))["storage"], "telemetry": {"enabled": False}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return dg.DagsterInstance.from_config(str(folder))


def become_reader(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    own = server.environment()
    url = URL.create(
        "postgresql+psycopg2",
        own["DAGSTER_PG_USER"],
        server.password,
        server.address,
        server.port,
        own["DAGSTER_PG_DB"],
    )
    reader, password = reader_of(url)
    monkeypatch.setenv("DAGSTER_PG_USER", reader)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", password)


def executed(server: PostgresServer, statement: str) -> None:
    place = {"host": server.address, "port": server.port, "dbname": server.environment()["DAGSTER_PG_DB"]}
    own = {"user": os.environ["DAGSTER_PG_USER"], "password": os.environ["DAGSTER_PG_PASSWORD"]}
    with closing(psycopg2.connect(**place, **own)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SET default_transaction_read_only = off")  # anybody may
        cursor.execute(statement)


@pytest.mark.costly
def test_it_reads_what_is_there_and_cannot_queue_a_run(
    server: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = row("retrain__orders")
    with opened(repository, tmp_path / "owner") as instance:
        instance.add_run(run)
    become_reader(server, monkeypatch)
    with opened(repository, tmp_path / "reader") as instance:
        assert instance.get_run_by_id(run.run_id) is not None
        assert instance.all_logs(run.run_id) == []
        with pytest.raises(Exception, match=r"permission denied|read-only transaction"):
            instance.add_run(row("retrain__orders"))
        assert instance.get_runs_count() == 1


@pytest.mark.costly
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO runs (run_id, status) VALUES ('x', 'QUEUED')",
        "UPDATE runs SET run_body = '{}'",
        "DELETE FROM runs",
        "TRUNCATE runs",
        "DROP TABLE runs",
        "CREATE TABLE evil (x int)",
        "CREATE TEMPORARY TABLE evil (x int)",
        "CREATE FUNCTION evil() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET ROLE driftline",
        "COPY runs TO PROGRAM 'id'",
    ],
)
def test_no_statement_of_its_own_changes_anything(
    server: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    with opened(repository, tmp_path / "owner"):
        become_reader(server, monkeypatch)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        executed(server, statement)


@pytest.mark.costly
def test_a_second_call_sets_another_password_and_later_tables_can_be_read(
    server: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(repository, tmp_path / "owner"):
        become_reader(server, monkeypatch)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    executed(server, "CREATE TABLE of_a_later_version (x int)")
    become_reader(server, monkeypatch)
    executed(server, "SELECT * FROM of_a_later_version")


@pytest.mark.costly
def test_a_user_that_may_not_make_users_is_told_what_to_do(server: PostgresServer) -> None:
    executed(server, "CREATE ROLE plain LOGIN PASSWORD 'plain'")
    url = URL.create("postgresql+psycopg2", "plain", "plain", server.address, server.port, "postgres")
    with pytest.raises(ReaderProblem, match="plain may not make the user plain_read_only"):
        reader_of(url)
