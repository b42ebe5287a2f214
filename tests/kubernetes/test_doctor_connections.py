"""`driftline doctor connections`: one line per connection, within a bound, and the value to change where one fails."""

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from platform_assets.base.settings import AUTHORITY_VARIABLES, Settings
from platform_assets.cli import main
from platform_assets.kubernetes import connections
from platform_assets.kubernetes.connections import Connection
from tests.cluster.certificates import Authority
from tests.doubles import faulty_s3, postgres_server, tls_proxy
from tests.doubles.postgres_server import MISSING, PostgresServer, binaries
from tests.doubles.s3_server import BUCKET, S3Server

NETWORKS, ACCESS = "the policy to-it (ITS_NETWORK)", "ITS_SECRET"


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def tried(attempt: object, host: str = "127.0.0.1", bound_s: float = 3.0) -> str:
    connection = Connection("it", host, 7, attempt, NETWORKS, ACCESS)  # type: ignore[arg-type]
    (result,) = connections.tried([connection], bound_s)
    return result.line()


def test_a_connection_that_hangs_is_given_up_and_names_addresses_and_the_policy() -> None:
    line = tried(threading.Event().wait, "localhost", 0.5)
    assert line.startswith("FAILED  it ")
    assert "Let the policy to-it (ITS_NETWORK) contain 127.0.0.1" in line or "::1" in line


def test_many_are_tried_at_once() -> None:
    item = Connection("it", "localhost", 7, threading.Barrier(8).wait, NETWORKS, ACCESS)
    assert [result.line()[:2] for result in connections.tried([item] * 8, 600.0)] == ["ok"] * 8


def test_a_refusal_and_a_name_that_nobody_knows_name_where_to_look(port: int) -> None:
    def refused() -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            socket.create_connection(nobody.getsockname(), timeout=2)

    assert "nothing listens there. Look at ITS_SECRET" in tried(refused)
    assert "See DNS" in tried(lambda: socket.getaddrinfo("nobody.invalid", 1))
    assert re.match(r"ok      it            127.0.0.1:7 +\d+ ms$", tried(lambda: None))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if binaries() is None:
        pytest.skip(MISSING)
    with postgres_server.running() as server:
        yield server


@pytest.mark.costly
def test_the_command_tries_what_the_environment_names_and_fails_when_one_does(
    postgres: PostgresServer, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in postgres.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", f"http://127.0.0.1:{port}/secret-path, http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    assert main(["doctor", "connections"]) == 0
    output = capsys.readouterr().out
    assert [line.split()[1] for line in output.splitlines()] == [
        *("PostgreSQL", "Alertmanager", "Alertmanager", "MLflow")
    ]
    assert "secret-path" not in output
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "another")
    assert main(["doctor", "connections"]) == 1
    failed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED"))
    assert "password authentication failed" in failed
    assert "the secret driftline-postgres" in failed
    monkeypatch.delenv("DAGSTER_PG_HOST")
    assert main(["doctor", "connections"]) == 1
    assert "DAGSTER_PG_HOST must be set" in capsys.readouterr().out


@pytest.fixture(scope="module")
def postgres_with_tls(authority: Authority) -> Iterator[PostgresServer]:
    if binaries() is None:
        pytest.skip(MISSING)
    with postgres_server.running(pair=authority.folder / "server") as server:
        yield server


@pytest.fixture(scope="module")
def store_with_tls(s3_server: S3Server, authority: Authority) -> Iterator[str]:
    with tls_proxy.in_front_of(s3_server.endpoint, authority.folder / "server") as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trusted", "host", "postgres_says", "store_says"),
    [
        ("private", "127.0.0.1", None, None),
        ("stranger", "127.0.0.1", "certificate verify failed", "unable to get local issuer certificate"),
        ("missing", "127.0.0.1", "missing.crt", "unable to get local issuer certificate"),
        ("private", "localhost", 'does not match host name "localhost"', "not valid for 'localhost'"),
    ],
    ids=["trusted", "another authority", "no file", "another name"],
)
def test_a_private_authority_is_trusted_and_what_it_did_not_sign_is_refused_by_name(
    trusted: str,
    host: str,
    postgres_says: str | None,
    store_says: str | None,
    postgres_with_tls: PostgresServer,
    store_with_tls: str,
    authority: Authority,
    stranger: Authority,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither is a lost packet, and no policy lets it through."""
    files = {item.name: str(item.certificate) for item in (authority, stranger)}
    file = files.get(trusted, "/etc/driftline-ca/missing.crt")
    environment = {
        **postgres_with_tls.environment(),
        "DAGSTER_PG_HOST": host,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": file,
        **s3_server.environment(store_with_tls.replace("127.0.0.1", host)),
        "AWS_ALLOW_HTTP": "false",
        **dict.fromkeys(AUTHORITY_VARIABLES, file),
        "DRIFTLINE_ROOT": f"s3://{BUCKET}/connections",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "connections"]) == int(postgres_says is not None)
    lines = capsys.readouterr().out.splitlines()
    for line, name, text in zip(lines, ("PostgreSQL", "store"), (postgres_says, store_says), strict=True):
        assert line.split()[:2] == ["ok" if text is None else "FAILED", name]
        if text is not None:
            assert "TLS failed: " in line
            assert text in line
            assert f"must name {host}" in line
            assert "config map driftline-ca" in line


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_no_lost_packet(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**s3_server.environment(), "DRIFTLINE_ROOT": "s3://nowhere/store"}.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "connections"]) == 1
    assert "the bucket s3://nowhere does not exist" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.slow
def test_a_store_that_is_busy_is_no_lost_packet(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its client repeats, and its message names a timeout of its own."""
    with faulty_s3.in_front_of(s3_server.endpoint) as faults:
        faults.add("GET", "connections", answer=503, times=100)
        for name, value in {**s3_server.environment(faults.endpoint), "DRIFTLINE_ROOT": f"s3://{BUCKET}/x"}.items():
            monkeypatch.setenv(name, value)
        assert main(["doctor", "connections"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert "503" in line
    assert "packets are dropped" not in line


def test_in_a_pod_names_the_code_server_and_the_api_are_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the store the server, not only its client, which repeats for minutes."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:8333")
    settings = Settings.from_environment({"DRIFTLINE_ENV": "cluster", "DRIFTLINE_ROOT": "s3://bucket/store"})
    names = {item.name: (item.host, item.port) for item in connections.needed(settings)}
    assert list(names) == ["DNS", "code server", "API server", "PostgreSQL", "store"]
    assert names["store"] == ("store.example", 8333)
