"""A built Bento, under `bentoml serve` and as a pod serves it: real processes, real sockets, steady load."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from platform_assets.base.settings import Settings
from platform_assets.serving.run import build, child, fetch
from platform_assets.store import segments
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models, pods, received
from tests.doubles.bento_client import CLIENT

pytestmark = pytest.mark.slow

PAUSE_S = 0.01
WAIT_S = 600.0


@dataclass
class Load:
    """Callers that send one row after the other, and retry with the same key when a connection breaks."""

    port: int
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[Any] = field(default_factory=list)
    broken: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.threads = [threading.Thread(target=self._call, args=(number,)) for number in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until `count` more requests are acknowledged."""
        enough, deadline = len(self.acknowledged) + count, time.monotonic() + WAIT_S
        while len(self.acknowledged) < enough:
            assert time.monotonic() < deadline, (len(self.acknowledged), enough, self.failed, self.broken)
            time.sleep(PAUSE_S)

    def _call(self, caller: int) -> None:
        connection, count = http.client.HTTPConnection(child.HOST, self.port, timeout=WAIT_S), 0
        while not self.is_over.is_set():
            key = f"{id(self)}-{caller}-{count}"
            body = json.dumps(models.row(key, idempotency_key=key))
            try:
                connection.request("POST", "/predict", body)
                with connection.getresponse() as response:
                    status, answer = response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                self.broken += 1
                continue
            count += 1
            if status == 200:
                self.acknowledged[answer["prediction_id"]] = answer
            else:
                self.failed.append((status, answer))
            time.sleep(PAUSE_S)
        connection.close()


@dataclass
class Service:
    """The served Bento, and the releases that the tests add to its store."""

    settings: Settings
    built: build.Built
    server: child.Server
    first: str
    second: str

    @property
    def port(self) -> int:
        return int(self.server.url.rsplit(":", 1)[1])

    def release(self, digest: str) -> int:
        return models.release(self.settings.root, digest)

    def state(self, is_right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until /readyz satisfies `is_right`; return its answer."""
        deadline = time.monotonic() + WAIT_S
        while not is_right(state := json.loads(self.server.probe("/readyz")[1])):
            assert time.monotonic() < deadline, (state, self.server.log.read_text()[-2000:])
            time.sleep(0.02)
        return state

    def logged(self, settings: Settings | None = None) -> list[str]:
        paths = ((settings or self.settings).prediction_log / models.PRODUCT).glob("*.jsonl")
        lines = (line for path in paths for line in path.read_bytes().splitlines(keepends=True))
        return [json.loads(line)["prediction_id"] for line in lines if line.endswith(b"\n")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("serve")
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder), "DRIFTLINE_SERVING_POLL_S": "0.1"})
    workshop = ArtifactStore(str(folder / "workshop"))
    fallback = models.write_bundle(workshop, bias=0.0)
    built = build.build(settings, workshop, fallback)
    assert built.was_built
    with child.serving(settings, built.tag) as server:
        yield Service(settings, built, server, *(models.write_bundle(workshop, bias=bias) for bias in (1.0, 2.0)))
    assert [process.pid for process in psutil.process_iter() if _is_of_group(process, server.process.pid)] == []


def _is_of_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False


@pytest.mark.costly
def test_a_bento_is_built_once_with_the_same_content_anywhere(service: Service, tmp_path: Path) -> None:
    workshop = ArtifactStore(str(service.settings.state / "workshop"))
    fallback = json.loads((service.built.path / "src/fallback/fallback.json").read_bytes())["digest"]
    again = build.build(service.settings, workshop, models.write_bundle(workshop, bias=7.0))
    assert (again.tag, again.content_digest, again.was_built) == (
        service.built.tag,
        service.built.content_digest,
        False,
    )
    other = build.build(Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)}), workshop, fallback)
    assert (other.tag, other.content_digest, other.was_built) == (again.tag, again.content_digest, True)
    (other.path / "src/fallback/contract.json").write_bytes(b"{}")
    assert build.content_digest(other.path) != other.content_digest


def test_the_bento_runs_its_own_code(service: Service) -> None:
    source = service.built.path / "src"
    code = "from platform_assets.serving.answer import predict; print(predict.__file__)"
    environment = {**service.settings.child_environment(), "PYTHONPATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(source / "platform_assets/serving/answer/predict.py")


@pytest.mark.costly
def test_a_bento_that_was_fetched_from_the_store_serves(service: Service, tmp_path: Path) -> None:
    store, fetched = ArtifactStore(str(tmp_path / "other")), tmp_path / "fetched"
    fetch.fetch(store, build.stored(store, service.built), fetched)
    assert build.content_digest(fetched) == service.built.content_digest
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)})
    with pods.serving(settings, fetched) as server:
        status, answer = server.predict(models.row())
    assert (status, answer["digest"]) == (
        200,
        json.loads((fetched / "src/fallback/fallback.json").read_bytes())["digest"],
    )


def test_the_service_starts_without_the_store_and_says_so(service: Service) -> None:
    state = service.state(lambda state: state["is_ready"])
    assert (state["source"], state["release"]) == ("fallback", None)
    assert "the folder does not exist; check DRIFTLINE_ROOT" in state["problem"]
    assert not Path(service.settings.root).exists(), "a service creates no store"
    status, answer = service.server.predict(models.row())
    assert (status, answer["probability"]) == (200, pytest.approx(models.expected(0.0), abs=1e-6))


@pytest.mark.costly
@pytest.mark.parametrize("is_pod", [True, False])
def test_bentos_own_client_gets_answers(service: Service, is_pod: bool) -> None:
    bodies = [models.row(), [models.row("a"), models.row("b")], models.row(features={"wind": -1})]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(pods.serving(service.settings, service.built.path)) if is_pod else service.server
        ran = subprocess.run(
            [sys.executable, "-c", CLIENT, server.url, json.dumps(bodies)],
            capture_output=True,
            text=True,
            check=True,
        )
    one, several, refused = json.loads(ran.stdout)
    assert one["probability"] == pytest.approx(models.expected(0.0), abs=1e-6)
    assert {answer["prediction_id"] for answer in (one, *several)} <= set(service.logged())
    assert refused.startswith("UnprocessableEntity")
    assert "features.wind: Expected `float` >= 0.0" in refused


def test_the_service_survives_hostile_sockets(service: Service) -> None:
    good, unread = json.dumps(models.row()).encode(), ("driftline_http_requests_total", 'path="unread",status="400"')
    before = _counted(service, *unread)
    status, answer = service.server.predict([models.row()] * 40_000)
    assert (status, answer["field"]) == (413, None)
    for raw, expected in (
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" + good, b" 4"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b" 400 "),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", b" 4"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b" 400 "),
        (b"\x16\x03\x01\x02\x00\x01", b" 400 "),
    ):
        with socket.create_connection((child.HOST, service.port), timeout=WAIT_S) as connection:
            connection.sendall(raw)
            assert expected in connection.recv(4096).split(b"\r\n")[0], raw
    assert _counted(service, *unread) > before
    with socket.create_connection((child.HOST, service.port), timeout=WAIT_S) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n" + good)
    assert service.server.predict(models.row())[0] == 200


def test_a_caller_that_closes_the_sending_side_gets_the_answer(service: Service) -> None:
    body = json.dumps(models.row("half closed")).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    before = len(service.logged())
    for _ in range(20):
        with socket.create_connection((child.HOST, service.port), timeout=WAIT_S) as connection:
            connection.sendall(head + body)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda open_connection=connection: open_connection.recv(65_536), b""))
            assert b" 200 " in answer.split(b"\r\n")[0]
            assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["entity"] == "half closed"
    assert len(service.logged()) == before + 20
    assert "Traceback" not in service.server.log.read_text()


def test_a_caller_that_disconnects_early_is_counted_without_a_traceback(service: Service) -> None:
    body = json.dumps([models.row(str(number)) for number in range(16)]).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    before, disconnected = len(service.logged()), _counted(service, "driftline_http_requests_total", 'status="gone"')
    for sent in (head, head + body[:100], head + body[:-1]):
        with socket.create_connection((child.HOST, service.port), timeout=WAIT_S) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(4096) == b"", "half a body has no answer"
    for number in range(20):
        with socket.create_connection((child.HOST, service.port), timeout=WAIT_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(head + body[: -number - 1])  # and a reset
    deadline = time.monotonic() + WAIT_S
    while (
        _counted(service, "driftline_http_requests_total", 'status="gone"') < disconnected + 3
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert _counted(service, "driftline_http_requests_total", 'status="gone"') >= disconnected + 3
    assert len(service.logged()) == before
    assert service.server.predict(models.row())[0] == 200
    assert "Traceback" not in service.server.log.read_text()


@pytest.mark.parametrize("is_pod", [True, False])
def test_no_server_takes_a_flood_in_a_head(service: Service, tmp_path: Path, is_pod: bool) -> None:
    """`test_protocol` has each kind of head; here both servers are shown to speak by that protocol."""
    with contextlib.ExitStack() as stack:
        settings = service.settings.replace(state=tmp_path)
        server = stack.enter_context(pods.serving(settings, service.built.path)) if is_pod else service.server
        port, sent, part = int(server.url.rsplit(":", 1)[1]), 0, b"x" * 50_000
        with socket.create_connection((child.HOST, port), timeout=WAIT_S) as connection, contextlib.suppress(OSError):
            connection.sendall(b"GET /")
            while sent < 20_000_000:
                connection.sendall(part)
                sent += len(part)
        assert server.predict(models.row())[0] == 200
        assert sent < 5_000_000
    assert "Traceback" not in server.log.read_text()


def test_two_releases_and_a_rollback_fail_no_request(service: Service) -> None:
    store = ArtifactStore(service.settings.root)
    assert [models.write_bundle(store, bias=bias) for bias in (1.0, 2.0)] == [service.first, service.second]
    with Load(service.port) as load:
        for digest in (service.first, service.second, service.first):
            number = service.release(digest)
            state = service.state(lambda state, number=number: (state["release"], state["problem"]) == (number, None))
            assert state["digest"] == digest
            load.wait_for(30)
            assert service.server.predict(models.row())[1]["digest"] == digest
            shown = re.findall(
                r'^driftline_model_info{.*digest="(\w{64})', service.server.probe("/metrics")[1].decode(), re.M
            )
            assert set(shown) == {digest}
    assert load.failed == []
    assert load.broken == 0
    assert {answer["digest"] for answer in load.acknowledged.values()} >= {service.first, service.second}
    logged = service.logged()
    assert load.acknowledged.keys() <= set(logged)
    assert len(logged) == len(set(logged))


@pytest.mark.costly
def test_a_service_that_was_asked_to_end_is_not_ready_first_and_answers_everybody(
    service: Service, tmp_path: Path
) -> None:
    settings = service.settings.replace(state=tmp_path, serving_drain_s=10.0)
    with pods.serving(settings, service.built.path) as server:
        with Load(int(server.url.rsplit(":", 1)[1])) as load:
            load.wait_for(30)
            server.process.terminate()
            while server.probe("/readyz")[0] == 200 or server.get("/readyz")[0] == 200:
                time.sleep(0.01)
            load.wait_for(30)  # until then whoever balances the load still sends requests
        assert server.process.wait(WAIT_S) == 0
    assert (load.failed, load.broken) == ([], 0)
    assert load.acknowledged.keys() <= set(service.logged(settings))


@pytest.mark.costly
def test_a_service_that_knows_its_callers_answers_no_other(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(f'app = ["{hashlib.sha256(b"secret").hexdigest()}"]\n')
    settings = service.settings.replace(state=tmp_path, serving_callers=file)
    home, body = {"BENTOML_HOME": str(service.settings.bentoml_home)}, json.dumps(models.row()).encode()

    def ask(path: str, **headers: str) -> int:
        with contextlib.closing(http.client.HTTPConnection(child.HOST, port, timeout=WAIT_S)) as connection:
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            return connection.getresponse().status

    with child.serving(settings, service.built.tag, environment=home) as server:
        port = int(server.url.rsplit(":", 1)[1])
        for path in ("/predict", "/api/predict"):
            assert ask(path) == ask(path, Authorization="Bearer guess") == 401
            assert ask(path, Authorization="Bearer secret") == 200
    paths = (settings.prediction_log / models.PRODUCT).glob("*.jsonl")
    callers = [json.loads(line)["caller"] for path in paths for line in path.read_bytes().splitlines()]
    assert callers == ["app", "app"]


@pytest.mark.costly
def test_what_callers_sent_to_a_plainly_served_bento_stays_out_of_its_archives(
    service: Service, tmp_path: Path
) -> None:
    home, caller, port = tmp_path / "home", "caller-of-nobody-else", child.free_port()
    bentoml = {"BENTOML_HOME": str(service.settings.bentoml_home), "BENTOML_DO_NOT_TRACK": "true"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **bentoml}  # as in a shell: no variable of ours
    before = _written(service.built.path)
    with (tmp_path / "log").open("wb") as output:
        plain = [part for part in child.command(service.built.tag, port) if part not in ("--host", child.HOST)]
        process = subprocess.Popen(plain, env=environment, stdout=output, stderr=output, start_new_session=True)
    address = f"http://{child.HOST}:{port}"
    server = child.Server(address, child.probes_of(service.settings, address), process, tmp_path / "log")
    try:
        server.wait_ready()
        assert server.predict(models.row(caller))[0] == 200
    finally:
        server.stop()
    assert _written(service.built.path) == before
    archive = tmp_path / "exported.tar.gz"
    command = [sys.executable, "-m", "bentoml", "export", service.built.tag, str(archive)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    exported = tmp_path / "exported"
    shutil.unpack_archive(archive, exported, filter="data")
    holds_it = [path for path in exported.rglob("*") if path.is_file() and caller.encode() in path.read_bytes()]
    assert holds_it == []
    state = home / ".local/state/driftline"
    (log,) = (state / "predictions" / models.PRODUCT).glob("*.jsonl")
    assert caller.encode() in log.read_bytes()
    folders = [path for path in state.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state, *folders)} == {0o700}
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def _written(bento: Path) -> set[str]:
    """Return the files of a Bento's folder, without what Python compiled."""
    paths = (path.relative_to(bento) for path in bento.rglob("*") if path.is_file())
    return {str(path) for path in paths if "__pycache__" not in path.parts}


@pytest.mark.costly
@pytest.mark.parametrize("is_pod", [True, False])
def test_a_state_within_the_bento_ends_the_start(service: Service, tmp_path: Path, is_pod: bool) -> None:
    (tmp_path / "elsewhere").symlink_to(service.built.path / "src")
    for state in (service.built.path / "state", tmp_path / "elsewhere" / "state"):
        printed = _refused(service, state, is_pod, {})
        assert f"serve: DRIFTLINE_STATE is {state}, within the Bento {service.built.path.resolve()}" in printed


WRONG = {
    "DRIFTLINE_SERVING_KEYS": "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqo=,",
    "DRIFTLINE_SERVING_CALLERS": "/absent/callers.toml",
    "DRIFTLINE_STATE": "/dev/null/state",
}
"""A wrong value of each kind: a ValueError, which Bento takes for a Bento that is not there, a file, a folder."""


@pytest.mark.costly
@pytest.mark.parametrize("is_pod", [True, False])
@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_setting_ends_the_start_in_one_sentence(
    service: Service, tmp_path: Path, variable: str, is_pod: bool
) -> None:
    sentence = _refused(service, tmp_path, is_pod, {variable: WRONG[variable]})
    assert re.fullmatch(rf"serve: .*{variable}.*\.", sentence), sentence  # one line, and nothing around it


@pytest.mark.costly
def test_an_http_store_that_the_client_would_refuse_is_named(service: Service, tmp_path: Path) -> None:
    store = {"DRIFTLINE_ROOT": "s3://bucket/store", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    sentence = "serve: AWS_ALLOW_HTTP is ''; expected true, because AWS_ENDPOINT_URL is http://127.0.0.1:9."
    assert _refused(service, tmp_path, True, store) == sentence


@pytest.mark.costly
@pytest.mark.parametrize("is_pod", [True, False])
@pytest.mark.parametrize("error", ["ValueError", "ImportError", "RuntimeError"])
def test_any_error_of_the_import_is_shown_as_what_it_is(
    service: Service, tmp_path: Path, error: str, is_pod: bool
) -> None:
    """Bento's loader takes the first two for a Bento that is not there, and each traceback begins with its search."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'platform_assets.serving.answer.callers': raise {error}('a broken library')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    printed = _refused(service, tmp_path, is_pod, {"PYTHONPATH": str(tmp_path)})
    assert f"{error}: a broken library" in printed.splitlines()[-1]
    assert "No module named" not in printed


@pytest.mark.costly
@pytest.mark.parametrize("is_pod", [True, False])
@pytest.mark.parametrize("is_own", [True, False])
def test_a_taken_port_of_probes_ends_the_start(service: Service, tmp_path: Path, is_pod: bool, is_own: bool) -> None:
    with socket.create_server((child.HOST, 0)) as taken:
        port = child.free_port()
        chosen = str(port if is_own else taken.getsockname()[1])
        sentence = _refused(service, tmp_path, is_pod, {"DRIFTLINE_SERVING_PROBES_PORT": chosen}, port)
    assert sentence == (
        f"serve: port {chosen} of {child.HOST} cannot be used: Address already in use. "
        "It is the port of probes; DRIFTLINE_SERVING_PROBES_PORT sets it."
    )


def _refused(service: Service, state: Path, is_pod: bool, environment: dict[str, str], port: int = 0) -> str:
    """Return what a server prints that does not start."""
    port = port or child.free_port()
    home = {"BENTOML_HOME": str(service.settings.bentoml_home)}
    ended = subprocess.run(
        pods.command(port) if is_pod else child.command(service.built.tag, port),
        cwd=service.built.path / "src",
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "true", "DRIFTLINE_STATE": str(state), **home, **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ended.returncode != 0
    return (ended.stdout + ended.stderr).removesuffix("\n")


def _counted(service: Service, name: str, label: str = "") -> float:
    lines = service.server.probe("/metrics")[1].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{") and label in line)


@pytest.mark.costly
def test_the_smoke_test_queries_exactly_one_bundle_and_logs_no_prediction(service: Service) -> None:
    second = models.write_bundle(ArtifactStore(service.settings.root), bias=2.0)
    before, settings = service.logged(), service.settings.replace(serving_ships=True)
    one, several = child.smoke(settings, service.built.tag, second, [models.row(), [models.row(), models.row()]])
    assert one["probability"] == several[1]["probability"] == pytest.approx(models.expected(2.0), abs=1e-6)
    assert service.logged() == before
    assert not Path(settings.root, segments.PREFIX).exists(), "no caller got these answers"


@pytest.mark.costly
def test_a_restarted_container_ships_what_the_killed_one_left(service: Service, tmp_path: Path) -> None:
    settings = service.settings.replace(
        state=tmp_path, root=str(tmp_path / "store"), serving_ships=True, serving_ship_s=0.1
    )
    Path(settings.root).mkdir()

    def wait_for(kind: str, count: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while received.kinds(settings.root, models.PRODUCT).count(kind) < count:
            assert time.monotonic() < deadline, received.kinds(settings.root, models.PRODUCT)
            time.sleep(0.1)

    given = []
    with pods.serving(settings.replace(serving_ship_s=600.0), service.built.path) as server:
        given += [server.predict(models.row(str(number)))[1]["prediction_id"] for number in range(20)]
        wait_for("hello", 1)
        server.process.kill()
    assert received.ids(settings.root, models.PRODUCT) == []
    with pods.serving(settings, service.built.path) as server:
        given.append(server.predict(models.row())[1]["prediction_id"])
        wait_for("goodbye", 1)
        wait_for("hello", 2)
        server.process.terminate()
        assert server.process.wait(WAIT_S) == 0
    deaths = [line for line in server.log.read_text().splitlines() if "ended without closing" in line]
    assert re.search(r"tiny: a process before this one ended without closing; it was last seen alive at 2", *deaths)
    assert list((settings.serving_kept / models.PRODUCT / "alive").glob("*.alive")) == []
    assert sorted(received.ids(settings.root, models.PRODUCT)) == sorted(given)
    assert received.kinds(settings.root, models.PRODUCT).count("goodbye") == 2
    assert list((settings.prediction_log / models.PRODUCT).iterdir()) == []


@pytest.mark.costly
def test_workers_end_when_their_parent_process_is_killed(service: Service, tmp_path: Path) -> None:
    settings = service.settings.replace(state=tmp_path)
    home = {"BENTOML_HOME": str(service.settings.bentoml_home)}
    with child.serving(settings, service.built.tag, environment=home) as server:
        (worker,) = psutil.Process(server.process.pid).children()
        server.process.kill()
        worker.wait(WAIT_S)


@pytest.mark.costly
def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("why it ended")
    with subprocess.Popen(["true"]) as process:
        process.wait()
        with pytest.raises(child.ServerProblem, match="why it ended"):
            child.Server("http://127.0.0.1:1", "http://127.0.0.1:2", process, log).wait_ready()
