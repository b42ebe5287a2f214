"""The probe of Dagster's daemon: it fails for one that stands still, and for no other reason."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat

from platform_assets.kubernetes.daemon_liveness import FROZEN_S, STUCK_S, Heartbeat, problem
from tests.doubles import cluster_environment, postgres_server
from tests.doubles.postgres_server import MISSING, PostgresServer, binaries

pytestmark = pytest.mark.slow

HOUR_S = 3600.0


def beats(process: str = "new", **ages_s: float) -> list[Heartbeat]:
    return [Heartbeat(thread, process, age_s) for thread, age_s in ages_s.items()]


@pytest.mark.parametrize(
    ("heartbeats", "running_s", "expected"),
    [
        (beats(SENSOR=10, BACKFILL=200), HOUR_S, None),
        (beats(SENSOR=FROZEN_S + 1, BACKFILL=FROZEN_S + 5), HOUR_S, "newest heartbeat is 121 s old"),
        (beats(SENSOR=10, BACKFILL=STUCK_S + 1), 2 * HOUR_S, "thread BACKFILL wrote its last heartbeat 901 s ago"),
        (beats(SENSOR=40), 30.0, "no heartbeat in the 30 s since it started"),
        ([], 30.0, "no heartbeat"),
        (beats(SENSOR=5) + beats("old", BACKFILL=STUCK_S + 1), 2 * HOUR_S, None),  # a thread that is not required now
    ],
)
def test_a_daemon_lives_by_its_own_newest_heartbeat(
    heartbeats: list[Heartbeat], running_s: float, expected: str | None
) -> None:
    result = problem(heartbeats, running_s)
    assert result is None if expected is None else result is not None and expected in result


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if binaries() is None:
        pytest.skip(MISSING)
    with postgres_server.running() as server:
        yield server


def probed(environment: Mapping[str, str], pid: int) -> tuple[int, str]:
    argv = [sys.executable, "-m", "platform_assets.kubernetes.daemon_liveness", str(pid)]
    ended = subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


@contextmanager
def sleeping() -> Iterator[int]:
    """A process that stands for the daemon, and started now."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.costly
def test_the_heartbeats_are_those_that_dagster_writes(
    postgres: PostgresServer, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat of an hour ago is an earlier process's; one of now is this one's; one of a minute hence is too."""
    for name, value in {**postgres.environment(), "DRIFTLINE_LOGS_BUCKET": "logs"}.items():
        monkeypatch.setenv(name, value)
    cluster_environment.home(repository, tmp_path / "home")
    path = tmp_path / "home/dagster.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({"storage": config["storage"]}), encoding="utf-8")
    with DagsterInstance.from_config(str(tmp_path / "home")) as instance, sleeping() as pid:
        assert probed(postgres.environment(), pid)[0] == 1
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - HOUR_S, "SENSOR", "old"))
        assert "no heartbeat" in probed(postgres.environment(), pid)[1]
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "new"))
        assert probed(postgres.environment(), pid) == (0, "")


def test_a_server_that_is_away_or_hangs_kills_no_daemon(postgres: PostgresServer) -> None:
    with socket.socket() as nobody, sleeping() as pid:
        nobody.bind(("127.0.0.1", 0))
        away = {**postgres.environment(), "DAGSTER_PG_PORT": str(nobody.getsockname()[1])}
        assert probed(away, pid)[0] == 0
        nobody.listen()  # accepts, and never answers
        code, text = probed(away, pid)
        assert code == 0
        assert "not asked about heartbeats" in text


def test_a_query_without_an_answer_ends_in_time(postgres: PostgresServer) -> None:
    """A table that somebody holds: the connection is fine, and the query waits."""
    import psycopg2

    environment = postgres.environment()
    connection = psycopg2.connect(
        host=environment["DAGSTER_PG_HOST"],
        port=environment["DAGSTER_PG_PORT"],
        dbname=environment["DAGSTER_PG_DB"],
        user=environment["DAGSTER_PG_USER"],
        password=environment["DAGSTER_PG_PASSWORD"],
    )
    try:
        with connection.cursor() as cursor, sleeping() as pid:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS daemon_heartbeats (daemon_type text, daemon_id text, timestamp timestamp)"
            )
            connection.commit()
            cursor.execute("LOCK TABLE daemon_heartbeats IN ACCESS EXCLUSIVE MODE")
            assert probed(environment, pid) == (0, "PostgreSQL was not asked about heartbeats: no answer after 10 s\n")
    finally:
        connection.close()
