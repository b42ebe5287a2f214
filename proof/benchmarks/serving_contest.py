"""Serve the flights' network by several contestants, send them the same requests, and read their CPU.

Every contestant gets the same bundle: the network of the product's blend (untrained weights cost the same), exported
with what two days of flights teach it; what the whole blend costs per request is in row Q1. Ours is the Bento as it is
built and served; peers are in `serving_peers.py` and `default_bento.py`. All have one worker.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
from torch import nn

from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.product.contract import contract_of
from platform_assets.product.learned import Learned
from platform_assets.product.spec import Product, Window
from platform_assets.products import flight_delays
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.middleware import PredictionMiddleware, Runtime
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.follow.alive import Mark
from platform_assets.serving.follow.follower import Follower
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.serving.run import build
from platform_assets.serving.run import child as serving
from platform_assets.serving.run.metrics import Metrics
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training import determinism, export
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from proof.benchmarks.harness import Disagreement
from tests.doubles import models

PRODUCT, KEYS = "flight_delays", ("2013-01-08", "2013-01-09")
REPOSITORY = Path(__file__).resolve().parents[2]
FASTAPI = ("fastapi==0.165.0", "annotated-doc")
OURS = "ours"
READY_S = 60.0
ROWS_MAX = 256
TOLERANCE = 1e-6
_CPUCLOCK_SCHED = 2
"""Of `clock_getcpuclockid`: Linux's CPU clock of a process, ended threads included."""


@dataclass(frozen=True)
class Contest:
    """A bundle, its Bento, and requests.

    Attributes:
        folder: of everything.
        tag: of our Bento, below `folder`.
        rows: requests of a day, each a row.
    """

    folder: Path
    tag: str
    rows: list[dict[str, Any]]

    def one_row(self) -> list[bytes]:
        """Return bodies of one row each."""
        return [json.dumps(row).encode() for row in self.rows]

    def lists(self) -> list[bytes]:
        """Return bodies of 256 rows each."""
        return [json.dumps(self.rows[start : start + ROWS_MAX]).encode() for start in (0, ROWS_MAX)]


@dataclass(frozen=True)
class Running:
    """A contestant that is ready.

    Attributes:
        process: of the server; its children serve too.
        paths: for one row, and for a list.
    """

    name: str
    port: int
    process: psutil.Process
    paths: tuple[str, str] = ("/predict", "/predict")

    def cpu_s(self) -> float:
        """Return the CPU seconds that the whole process tree has used, to the nanosecond."""
        tree = [self.process, *self.process.children(recursive=True)]
        return sum(time.clock_gettime((~process.pid << 3) | _CPUCLOCK_SCHED) for process in tree)

    def requests(self, bodies: Sequence[bytes], *, lists: bool = False) -> list[bytes]:
        """Return bodies with their HTTP heads."""
        head = (
            f"POST {self.paths[lists]} HTTP/1.1\r\nHost: {serving.HOST}:{self.port}\r\n"
            "User-Agent: driftline-bench\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: "
        )
        return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


def prepare(folder: Path) -> Contest:
    """Export the network and build our Bento."""
    spec, learned, network = untrained()
    store, digest = write(spec, export.to_onnx(network, learned, spec.task), folder)
    rows = [
        {name: value for name, value in row.items() if name != "idempotency_key"}
        for key in KEYS
        for row in replay.requests(spec, key)
    ]
    return Contest(folder, build.build(settings_of(folder), store, digest).tag, rows)


def write(spec: Product, graph: bytes, folder: Path) -> tuple[ArtifactStore, str]:
    """Store a bundle with a graph of a product below a folder; return the store and the bundle's digest."""
    store, document = ArtifactStore(str(folder / "store")), contract_of(spec)
    golden = models.golden_of(document, graph=graph)
    digest = models.write_bundle(store, document=document, graph=graph, golden=golden)
    (folder / "digest").write_text(digest, encoding="utf-8")
    return store, digest


def untrained() -> tuple[Product, Learned, nn.Module]:
    """Return the product, what two days teach it, and its network; the same weights each time."""
    spec = product_files.load(PRODUCT)
    learned = learn(inputs_of(features_of(spec, KEYS), spec.fields), spec.fields)
    determinism.fix(1)
    return spec, learned, flight_delays.model(learned, spec.training).eval()


def features_of(spec: Product, keys: Sequence[str]) -> pl.DataFrame:
    """Return the features of what happened at some keys."""
    return pl.concat(
        spec.features(replay.known_tables(spec, key), Window(grain=spec.grain, keys=(key,))) for key in keys
    )


def settings_of(folder: Path, **variables: object) -> Settings:
    """Return the settings of a service below a folder, with one worker."""
    chosen = {"state": folder, "root": folder / "store", **variables}
    return Settings.from_environment({f"DRIFTLINE_{name.upper()}": str(value) for name, value in chosen.items()})


@contextlib.contextmanager
def ours(contest: Contest) -> Iterator[Running]:
    with serving.serving(settings_of(contest.folder), contest.tag) as server:
        yield Running(OURS, int(server.url.rsplit(":", 1)[1]), psutil.Process(server.process.pid))


@contextlib.contextmanager
def peer(contest: Contest, name: str) -> Iterator[Running]:
    """Serve a peer under uvicorn; see `serving_peers.PEERS`."""
    port = serving.free_port()
    command = [sys.executable, Path(__file__).with_name("serving_peers.py"), name, contest.folder, str(port)]
    with _started(name, contest, command, port) as running:
        yield running


@contextlib.contextmanager
def timed(contest: Contest) -> Iterator[Running]:
    """Serve our middleware with timers around its stages; see `serving_timed`."""
    port = serving.free_port()
    script = Path(__file__).with_name("serving_timed.py")
    with _started("timed", contest, [sys.executable, script, "serve", contest.folder, str(port)], port) as running:
        yield replace(running, paths=("/predict", "/predict"))


def times(running: Running) -> dict[str, float]:
    """Return the sums of a `timed` server since the last call, and the CPU seconds of its process."""
    connection = Connection(running.port)
    connection.send(b"GET /times HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while (answer := connection.receive()) is None:
        pass
    connection.socket.close()
    result: dict[str, float] = json.loads(answer[1])
    return result


def contract_of_contest(folder: Path) -> Contract:
    digest = (folder / "digest").read_text(encoding="utf-8")
    return Contract.from_bytes(ArtifactStore(str(folder / "store")).bundle(digest).read("contract.json"))


def middleware_of(folder: Path) -> PredictionMiddleware:
    """Return the middleware with the bundle below a folder, and a log and metrics of its own."""
    store = ArtifactStore(str(folder / "store"))
    digest = (folder / "digest").read_text(encoding="utf-8")
    contract = contract_of_contest(folder)
    follower = Follower(contract, str(folder / "store"), fallback=store, fallback_digest=digest, pinned=None)
    follower.fall_back()
    assert follower.live is not None, follower.problem
    predictor = Predictor(PredictionLog(folder / "log-of-timed"))
    runtime = Runtime(contract, follower, predictor, Metrics(), Mark(folder / "alive"), poll_s=60.0)
    return PredictionMiddleware(None, make=lambda: runtime)  # type: ignore[arg-type]  # no path goes further


@contextlib.contextmanager
def default_bento(contest: Contest, name: str, kind: str) -> Iterator[Running]:
    """Serve a service of `default_bento.py` with BentoML's defaults."""
    port = serving.free_port()
    service = f"proof.benchmarks.default_bento:{kind}"
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", serving.HOST, "--port", str(port)]
    with _started(name, contest, command, port) as running:
        yield replace(running, paths=("/predict", "/predict_rows"))


@contextlib.contextmanager
def _started(name: str, contest: Contest, command: Sequence[Any], port: int) -> Iterator[Running]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(fastapi_folder())]),
        "CONTEST": str(contest.folder),
        "BENTOML_HOME": str(contest.folder / "bentoml-of-peers"),
        "BENTOML_DO_NOT_TRACK": "true",
    }
    log = contest.folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=contest.folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(port, process, log)
        yield Running(name, port, psutil.Process(process.pid), ("/predict", "/predict_rows"))
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for item in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                item.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((serving.HOST, port), 1.0):
            return
        time.sleep(0.1)
    raise Disagreement(f"a contestant did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


def fastapi_folder() -> Path:
    """Return a folder with FastAPI, installed on first use; everything that it needs is the same as ours."""
    path = Settings.from_environment().state / "bench-envs" / "fastapi"
    if not (path / "ready").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(path)]
        subprocess.run([*install, *FASTAPI], check=True)
        (path / "ready").touch()
    return path


class Connection:
    """A connection that sends one request after the other and takes the answers apart."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((serving.HOST, port), 30.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Return status and body as soon as the answer is complete; None before."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed a connection")
        self._received = self._received + part if self._received else part
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return None
        start = self._received.lower().index(b"content-length:", 0, head) + 15
        length = int(self._received[start : self._received.index(b"\r\n", start)])
        if len(self._received) < head + 4 + length:
            return None
        status, body = int(self._received[9:12]), self._received[head + 4 : head + 4 + length]
        self._received = b""
        return status, body


def closed_loop(port: int, requests: Sequence[bytes], connections: int, count: int) -> None:
    """Send `count` requests over some connections, each the next as soon as it has an answer; all must be 200."""
    poll, by_number, sent, received = select.epoll(), {}, 0, 0
    for _ in range(connections):
        connection = Connection(port)
        by_number[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
        connection.send(requests[sent % len(requests)])
        sent += 1
    while received < count:
        for number, _ in poll.poll(30.0):
            answer = by_number[number].receive()
            if answer is None:
                continue
            if answer[0] != 200:
                raise Disagreement(f"the server on port {port} answered {answer[0]}: {answer[1][:500]!r}")
            received += 1
            if sent < count:
                by_number[number].send(requests[sent % len(requests)])
                sent += 1
    poll.close()
    for connection in by_number.values():
        connection.socket.close()


def ask(running: Running, body: bytes, *, lists: bool = False) -> tuple[int, Any]:
    """Return status and decoded answer of one request."""
    connection = Connection(running.port)
    connection.send(running.requests([body], lists=lists)[0])
    while (answer := connection.receive()) is None:
        pass
    connection.socket.close()
    return answer[0], json.loads(answer[1]) if answer[0] == 200 else answer[1]


def agree(contest: Contest, contestants: Sequence[Running]) -> None:
    """Raise `Disagreement` unless all give the same answers, and refuse the same requests."""
    one, several = contest.one_row()[:8], contest.lists()[0]
    expected = [_plain(ask(contestants[0], body)) for body in one], _plain(ask(contestants[0], several, lists=True))
    for running in contestants[1:]:
        given = [_plain(ask(running, body)) for body in one], _plain(ask(running, several, lists=True))
        if not _is_same(expected, given):
            raise Disagreement(f"{running.name} answers {given[0][:2]}, {contestants[0].name} {expected[0][:2]}.")
    lists = {"an empty list": b"[]", "a row too many": json.dumps((contest.rows * 2)[: ROWS_MAX + 1]).encode()}
    for name, body in {**bad_rows(contest.rows[0]), **lists}.items():
        statuses = {running.name: ask(running, body, lists=name in lists)[0] for running in contestants}
        if 200 in statuses.values():
            raise Disagreement(f"not everybody refuses {name}: {statuses}")


def bad_rows(row: Mapping[str, Any]) -> dict[str, bytes]:
    """Return requests that the contract forbids, by name."""
    features = row["features"]
    number = next(name for name, value in features.items() if isinstance(value, float))
    text = next(name for name, value in features.items() if isinstance(value, str))

    def with_feature(name: str, value: Any) -> dict[str, Any]:
        return {**row, "features": {**features, name: value}}

    without = {name: value for name, value in features.items() if name != number}
    rows = {
        "no entity": {name: value for name, value in row.items() if name != "entity"},
        "a missing feature": {**row, "features": without},
        "an unknown feature": with_feature("unknown", 1),
        "text for a number": with_feature(number, "1.5"),
        "a number for text": with_feature(text, 1),
        "a boolean for a number": with_feature(number, True),
        "a number beyond its bounds": with_feature(number, 1e39),
        "NaN": with_feature(number, float("nan")),
        "an empty text": with_feature(text, ""),
        "a time without a zone": {**row, "asked_at": "2013-01-08T10:00:00"},
        "a time long ago": {**row, "asked_at": "0001-01-01T00:00:00Z"},
        "an empty entity": {**row, "entity": ""},
    }
    bodies = {name: json.dumps(value).encode() for name, value in rows.items()}
    return {**bodies, "no JSON": b"{", "a cut row": json.dumps(row).encode()[:-1]}


def _plain(response: tuple[int, Any]) -> Any:
    """Return status and answers without their ids."""
    status, answer = response
    if status != 200:
        return status, answer
    rows = answer if isinstance(answer, list) else [answer]
    return status, [{name: value for name, value in row.items() if name != "prediction_id"} for row in rows]


def _is_same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= TOLERANCE
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_is_same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_is_same, left, right))
    return bool(left == right)
