"""Several models in one service process: p99 per model for 1, 5 and 20 of them, with room for all and with less.

The flights' network (untrained weights cost the same) in twenty versions that answer differently, under `driftline
serve`. Open loop: a request is sent when it is due, to a model drawn evenly, which is the worst case for what was used
last. Each answer is compared with that of the version's own graph. Where a model was dropped, its request waits until
it is loaded again, and with it whatever needs the same processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import onnx
import psutil
from onnx import helper, numpy_helper

from platform_assets.demo import replay
from platform_assets.product.contract import contract_of
from platform_assets.serving.answer import batching
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.serving.answer.model import ANSWER, Model
from platform_assets.serving.answer.requests import Request
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.run import child as serving
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training import export
from platform_assets.training.sealed import Sealed
from tests.benchmarks import serving_contest as contest
from tests.benchmarks.harness import Disagreement, Measure
from tests.benchmarks.serving_contest import PRODUCT, Connection
from tests.doubles import models

COUNT, ROWS, LETTERS = 20, 200, 12
TOLERANCE = 1e-6
shown: list[str] = []


@dataclass(frozen=True)
class Case:
    """A load: how many models are asked, how many fit, requests per second, and requests in total."""

    count: int
    fit: int
    rate: float
    requests: int


CASES = (
    Case(1, 1, 100.0, 1_000),
    Case(5, 5, 100.0, 2_500),
    Case(20, 20, 100.0, 6_000),
    Case(20, 18, 100.0, 6_000),
    Case(20, 10, 20.0, 3_000),
)


@dataclass(frozen=True)
class Prepared:
    """The versions, rows, and what each version answers to each row.

    Attributes:
        size: bytes of memory that one version takes, as the process that tries models measures it.
    """

    folder: Path
    digests: list[str]
    rows: list[dict[str, Any]]
    expected: list[list[float]]
    size: int


def run() -> list[Measure]:
    """Measure every case."""
    with tempfile.TemporaryDirectory() as name:
        prepared = _prepare(Path(name))
        shown.append(f"one version takes {prepared.size / 2**20:.2f} MB of memory, as measured when it is tried")
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        shown.append(f"load of the machine before the first case, over 1, 5 and 15 minutes: {load}")
        return [measure for case in CASES for measure in _measured(case, prepared)]


def _prepare(folder: Path) -> Prepared:
    spec, learned, network = contest.untrained()
    graph = export.to_onnx(network, learned, spec.task)
    settings = contest.settings_of(folder)
    store, document = ArtifactStore(settings.root), contract_of(spec)
    digests = []
    for number in range(COUNT):
        version = _version(graph, number)
        golden = models.golden_of(document, graph=version)
        digests.append(models.write_bundle(store, document=document, graph=version, golden=golden))
    rows = [contest._without_key(row) for row in replay.requests(spec, contest.KEYS[0])[:ROWS]]
    decoded = Decoding(Contract(document)).decode(json.dumps(rows).encode())
    sealed = [Sealed.read(store, digest) for digest in digests]
    expected = [batching.run_graph(Model.from_blobs(item), _values(decoded)) for item in sealed]
    trial = Trial(60.0, measures=True)
    trial(sealed[0])
    return Prepared(folder, digests, rows, expected, trial.size(digests[0]))


def _version(graph: bytes, number: int) -> bytes:
    """Return a graph whose answers are those of another one to the power of 1 + number / 20."""
    model = onnx.load_from_string(graph)
    last = next(node for node in model.graph.node if ANSWER in node.output)
    last.output[list(last.output).index(ANSWER)] = "before"
    power = numpy_helper.from_array(np.array(1 + number / COUNT, np.float32), "power")
    model.graph.initializer.append(power)
    model.graph.node.append(helper.make_node("Pow", ["before", "power"], [ANSWER]))
    return bytes(model.SerializeToString(deterministic=True))


def _measured(case: Case, prepared: Prepared) -> Iterator[Measure]:
    chance = random.Random(case.count * 100 + case.fit)
    asked = [(chance.randrange(case.count), chance.randrange(len(prepared.rows))) for _ in range(case.requests)]
    limit_mb = (case.fit + 0.5) * prepared.size / 2**20
    with _served(prepared, case.count, limit_mb) as server:
        for model in range(case.count):  # each once, not measured
            _open_loop(server, prepared, [(model, 0)], 1_000.0)
        before = _figures(server)
        latencies = _open_loop(server, prepared, asked, case.rate)
        figures = {name: value - before[name] for name, value in _figures(server).items()}
        resident = psutil.Process(server.process.pid).memory_info().rss / 2**20
    p99 = [_p99([s for (m, _), s in zip(asked, latencies, strict=True) if m == model]) for model in range(case.count)]
    name = f"{case.count} model{'s' * (case.count > 1)}, room for {case.fit}, {case.rate:g} requests per second"
    yield Measure(measure=f"{name}: p99 of a model, ms, median of models", ours=median(p99) * 1e3)
    yield Measure(measure=f"{name}: p99 of a model, ms, the slowest model", ours=max(p99) * 1e3)
    yield Measure(measure=f"{name}: p50 of all requests, ms", ours=median(latencies) * 1e3)
    yield Measure(measure=f"{name}: answers, each compared with its own model's", ours=float(len(latencies)))
    loads, seconds = figures["count"], figures["sum"]
    per_load = f", {seconds / loads * 1e3:.0f} ms each from the request to the loaded graph" if loads else ""
    shown.append(f"{name}: limit {limit_mb:.1f} MB; {loads:.0f} loads{per_load}; {resident:.0f} MB resident at its end")


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))]


@contextlib.contextmanager
def _served(prepared: Prepared, count: int, limit_mb: float) -> Iterator[serving.Server]:
    port, settings = serving.free_port(), contest.settings_of(prepared.folder)
    names = [f"{PRODUCT}@{digest}" for digest in prepared.digests[:count]]
    options = ["--memory-mb", str(limit_mb), "--port", str(port)]
    log = prepared.folder / "shared.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "platform_assets.serving.run.host", *names, *options],
            env=settings.child_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = serving.Server(f"http://{serving.HOST}:{port}", f"http://{serving.HOST}:{port + 1}", process, log)
    try:
        server.wait_ready(300.0)
        yield server
    finally:
        process.kill()
        process.wait()


def _figures(server: serving.Server) -> dict[str, float]:
    """Return the number of loads and their seconds."""
    lines = [line.rsplit(" ", 1) for line in server.probe("/metrics")[1].decode().splitlines()]
    names = {"count": "driftline_model_load_seconds_count", "sum": "driftline_model_load_seconds_sum"}
    return {key: sum(float(value) for name, value in lines if name.startswith(start)) for key, start in names.items()}


def _open_loop(
    server: serving.Server, prepared: Prepared, asked: Sequence[tuple[int, int]], rate: float
) -> list[float]:
    """Send requests at fixed times; return the seconds from each one's time to its answer, which must be right."""
    port = int(server.url.rsplit(":", 1)[1])
    poll, free, latencies = select.epoll(), list[Connection](), [0.0] * len(asked)
    bodies = [json.dumps(row).encode() for row in prepared.rows]
    busy: dict[int, tuple[Connection, int]] = {}
    begin_s, sent, received = time.perf_counter(), 0, 0
    while received < len(asked):
        due_s, now_s = begin_s + sent / rate, time.perf_counter()
        if sent < len(asked) and now_s >= due_s:
            if not free:
                free.append(Connection(port))
                poll.register(free[-1].socket, select.EPOLLIN)
            connection = free.pop()
            model, row = asked[sent]
            connection.send(_request(prepared.digests[model], bodies[row]))
            busy[connection.socket.fileno()] = connection, sent
            sent += 1
            continue
        for number, _ in poll.poll(max(0.0, due_s - now_s) if sent < len(asked) else 60.0):
            if number not in busy:  # the server has closed an idle connection
                (idle,) = [connection for connection in free if connection.socket.fileno() == number]
                free.remove(idle)
                idle.socket.close()
                continue
            connection, place = busy[number]
            answer = connection.receive()
            if answer is None:
                continue
            latencies[place] = time.perf_counter() - (begin_s + place / rate)
            _check(prepared, *asked[place], *answer)
            free.append(busy.pop(number)[0])
            received += 1
    poll.close()
    for connection in free:
        connection.socket.close()
    return latencies


def _request(digest: str, body: bytes) -> bytes:
    path = f"/{PRODUCT}@{digest[:LETTERS]}/predict"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _check(prepared: Prepared, model: int, row: int, status: int, body: bytes) -> None:
    answer = json.loads(body)
    expected = prepared.expected[model][row]
    is_right = status == 200 and answer["digest"] == prepared.digests[model]
    if not is_right or abs(answer["probability"] - expected) > TOLERANCE:
        raise Disagreement(f"model {model} answers row {row} with {status} {body[:300]!r}; expected {expected}.")


def _values(request: Request) -> list[tuple[Any, ...]]:
    return [msgspec.structs.astuple(row.features) for row in request.rows]
