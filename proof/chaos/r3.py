"""Hostile input: what a caller may send to a served Bento, and what is accepted of it reaches the predictions.

Both shipped products with their real graphs (untrained) under `bentoml serve`: a corpus of bodies, dates,
texts, pictures, queries and HTTP of our own, requests that Schemathesis draws from /openapi.json, and damaged copies of
good requests. Files to create, addresses to call and pickles are planted in them. Every accepted answer must arrive in
the table of predictions.
"""

import http.client
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.prediction_log.prediction_log import ingest_log
from platform_assets.product.contract import contract_of
from platform_assets.product.spec import Product, Window
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.run import build
from platform_assets.serving.run import child as serving
from platform_assets.store.artifacts import ArtifactStore, canonical
from platform_assets.store.product_store import ProductStore
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from proof.benchmarks.harness import Measure
from proof.benchmarks.serving_contest import fastapi_folder
from proof.chaos import r3_bodies, r3_http
from proof.chaos.r3_bodies import Attack
from proof.doubles import untrained
from tests.doubles import models
from tests.doubles.drawn_requests import Document, draw

PRODUCTS = {"flight_delays": ("2013-01-08", 20), "garment_photos": ("0001", 50)}
"""A key of each product, whose first row is the good request, and how many requests Schemathesis draws of each kind."""
BODIES, WARM, GROWTH_MB, SEED = 5_000, 500, 20, 20261127
PEER_BODIES, PEER_S, READY_S = 1_000, 300.0, 120.0
PEERS: dict[str, Callable[[int], list[str]]] = {
    "default Bento": lambda port: serving.command("proof.chaos.r3_peer:Peer", port),
    "FastAPI": lambda port: [
        *(sys.executable, "-m", "uvicorn", "--factory", "proof.chaos.r3_peer:fastapi"),
        *("--host", serving.HOST, "--port", str(port), "--no-access-log"),
    ],
}
"""The command of each peer. Each gets the first bodies only: `PEER_BODIES` per product, fewer if they take `PEER_S`."""
PATHS = ("/predict", "/api/predict")
STATUS = re.compile(rb"(?:^|[\n}\]])HTTP/1\.[01] (\d{3}) ")
IDS = re.compile(rb'"prediction_id":"([0-9a-f]+)"')
shown: list[str] = []


@dataclass
class Seen:
    """What a service did.

    Attributes:
        accepted: ids of the answers.
        statuses: by path and status; None for a connection that was closed without an answer.
        bad: what must not happen, by kind, with the request's name.
    """

    accepted: set[str] = field(default_factory=set)
    statuses: Counter[int | None] = field(default_factory=Counter)
    bad: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, name: str) -> None:
        self.bad.setdefault(kind, []).append(name)

    def answer(self, name: str, status: int, body: bytes) -> Any:
        """Record an answer; return its JSON."""
        self.statuses[status] += 1
        if status >= 500:
            self.note("5xx", f"{name}: {status} {body[:200]!r}")
        try:
            answer = json.loads(body, parse_constant=lambda constant: self.note("not finite", f"{name}: {constant}"))
        except ValueError:
            self.note("not JSON", f"{name}: {status} {body[:100]!r}")
            return {}
        if status == 200:
            rows = answer if isinstance(answer, list) else [answer]
            self.accepted |= {row["prediction_id"] for row in rows if isinstance(row, dict)}
            if not all(math.isfinite(number) for row in rows for number in _numbers(row)):
                self.note("not finite", name)
        return answer


def run() -> list[Measure]:
    shown.clear()
    total, bad, growth = 0, Counter[str](), {}
    bad_of_peers = {peer: Counter[str]() for peer in PEERS}
    sent_to_peers = Counter[str]()
    ingested: dict[str, int] = {}
    for name, (key, drawn) in PRODUCTS.items():
        with tempfile.TemporaryDirectory(prefix="driftline-r3-") as folder:
            spec, graph = product_files.load(name), _graph(product_files.load(name), key)
            row = replay.requests(spec, key)[0]
            seen, growth[name], ingested[name] = _attacked(spec, graph, row, drawn, Path(folder))
            for peer, command in PEERS.items():
                seen_of_peer, sent = _peer(spec, graph, row, Path(folder), command)
                sent_to_peers[peer] += sent
                bad_of_peers[peer].update({kind: len(names) for kind, names in seen_of_peer.bad.items()})
        total += sum(seen.statuses.values())
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses.items(), key=str))
        shown.append(f"{name}: answers by status {statuses}; {len(seen.accepted)} accepted, {ingested[name]} ingested.")
        print(shown[-1], flush=True)
        for kind, names in seen.bad.items():
            bad[kind] += len(names)
            for text in names[:10]:
                print(f"  {kind}: {text}", flush=True)
    titles = {
        "5xx": "answers with 5xx",
        "executions": "files created or addresses called",
        "not finite": "numbers that are not finite",
        "not JSON": "answers that are not JSON",
        "contradictions": "contradictions between /openapi.json and the service",
        "not ingested": "accepted answers that are not among the predictions",
        "tracebacks": "tracebacks in the service's log",
    }
    return [
        Measure("requests", total, target=f">= {2 * BODIES}"),
        *(
            Measure(
                title,
                bad[kind],
                peers={
                    f"{peer}, the first {sent_to_peers[peer]:,} bodies": counts[kind]
                    for peer, counts in (bad_of_peers.items() if kind in ("5xx", "not finite") else ())
                },
                target="<= 0",
            )
            for kind, title in titles.items()
        ),
        *(
            Measure(f"{name}: MB that resident memory grew", value, target=f"<= {GROWTH_MB} MB")
            for name, value in growth.items()
        ),
    ]


def _attacked(spec: Product, graph: bytes, row: dict[str, Any], drawn: int, folder: Path) -> tuple[Seen, float, int]:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder)})
    store, seen, contract = ArtifactStore(str(folder / "workshop")), Seen(), Contract(contract_of(spec))
    document = contract_of(spec)
    golden = models.golden_of(document, graph=graph)
    digest = models.write_bundle(store, document=document, graph=graph, golden=golden)
    built = build.build(settings, store, digest)
    row, canary = {**row, "idempotency_key": None}, folder / "canary"
    with serving.serving(settings, built.tag) as server, _listening() as (address, calls):
        port = int(server.url.rsplit(":", 1)[1])
        (worker,) = psutil.Process(server.process.pid).children(recursive=True)
        _send(port, seen, [Attack("good", json.dumps(row).encode()) for _ in range(WARM)])
        before = worker.memory_info().rss
        attacks = [_planted(item, canary, address) for item in r3_bodies.bodies(contract, row, BODIES, SEED)]
        _send(port, seen, attacks)
        # Requests that Schemathesis draws: each answer is compared with the document.
        document = Document(contract)
        connection = http.client.HTTPConnection(serving.HOST, port, timeout=r3_http.PATIENCE_S)
        for allowed in (True, False):
            for request in draw(contract, drawn, allowed=allowed, start=SEED):
                attack = Attack("drawn", request.body, request.content_type, request.query)
                status, answer = _ask(connection, seen, attack, PATHS[0])
                is_allowed = document.allows(request)
                if status == 200 and not is_allowed:
                    seen.note("contradictions", f"forbidden and accepted: {request}")
                if status == 422 and is_allowed and not document.explains(answer, request):
                    seen.note("contradictions", f"allowed and refused: {answer} {request}")
        connection.close()
        _connect(port, seen, row, str(canary))
        _send(port, seen, [Attack("good", json.dumps(row).encode()) for _ in range(10)])
        growth = (worker.memory_info().rss - before) / 1e6
        log = server.log.read_text(encoding="utf-8", errors="replace")
    for _ in range(log.count("Traceback")):
        seen.note("tracebacks", log[log.index("Traceback") :][:1_500])
    for name in (*(["the canary's file"] if canary.exists() else []), *calls):
        seen.note("executions", name)
    # Accepted answers must be among the predictions, read as the platform does.
    product = ProductStore(spec, settings)
    done = ingest_log(product, settings.prediction_log / spec.name, "r3")
    records = list(product.tables.records("predictions"))
    rows = product.tables.read("predictions", records, columns=["prediction_id"])
    arrived = set(rows["prediction_id"])
    for missing in sorted(seen.accepted - arrived):
        seen.note("not ingested", missing)
    for item in done.left_out:
        seen.note("not ingested", f"left out: {item.reason}")
    return seen, growth, len(arrived & seen.accepted)


def _peer(
    spec: Product, graph: bytes, row: dict[str, Any], folder: Path, command: Callable[[int], list[str]]
) -> tuple[Seen, int]:
    """Send the first bodies to a peer with the same graph, whose API takes lists of rows; return how many were sent.

    A peer may need minutes for one body, and goes on with it after its caller left.
    """
    (folder / "model.onnx").write_bytes(graph)
    (folder / "contract.json").write_bytes(canonical(contract_of(spec)))
    contract, port, seen = Contract(contract_of(spec)), serving.free_port(), Seen()
    if contract.image is not None:  # its type is lists of grey levels
        height, width = contract.image.sized
        row = {**row, "features": {contract.image.name: [[0] * width] * height}}
    environment = {
        **os.environ,
        "R3_PEER": str(folder),
        "BENTOML_HOME": str(folder / "peer"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(fastapi_folder())]),
    }
    with (
        (folder / "peer.log").open("wb") as log,
        subprocess.Popen(
            command(port), cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            good = Attack("good", json.dumps([row]).encode())
            deadline = time.monotonic() + READY_S
            while seen.statuses[200] == 0 and time.monotonic() < deadline:
                seen = Seen()
                _send(port, seen, [good], PATHS[:1])
                time.sleep(1.0)
            assert seen.statuses[200], (folder / "peer.log").read_text(encoding="utf-8")[-2_000:]
            attacks = [
                item for item in r3_bodies.bodies(contract, row, BODIES, SEED) if item.content_type == r3_bodies.JSON
            ]
            lists = [item.body if item.body.lstrip()[:1] == b"[" else b"[" + item.body + b"]" for item in attacks]
            deadline = time.monotonic() + PEER_S
            some = (Attack("peer", body) for body in lists[:PEER_BODIES] if time.monotonic() < deadline)
            sent = _send(port, seen, some, PATHS[:1])
        finally:
            workers = psutil.Process(process.pid).children(recursive=True)
            for item in (process, *workers):  # it replaces workers, so it goes first
                item.kill()
    return seen, sent


def _graph(spec: Product, key: str) -> bytes:
    frame = spec.features(replay.known_tables(spec, key), Window(grain=spec.grain, keys=(key,)))
    values = inputs_of(frame, spec.fields)
    return untrained.graph(spec, values, learn(values, spec.fields))


def _planted(attack: Attack, canary: Path, address: str) -> Attack:
    body = attack.body.replace(b"CANARY", str(canary).encode()).replace(b"LISTENER", address.encode())
    return Attack(attack.name, body, attack.content_type, attack.query)


def _send(port: int, seen: Seen, attacks: Iterable[Attack], paths: Sequence[str] = PATHS) -> int:
    """Send bodies one after the other to the first path, each tenth to the others too; return how many."""
    connection = http.client.HTTPConnection(serving.HOST, port, timeout=r3_http.PATIENCE_S)
    number = -1
    for number, attack in enumerate(attacks):
        for path in paths if number % 10 == 0 else paths[:1]:
            _ask(connection, seen, attack, path)
    connection.close()
    return number + 1


def _ask(connection: http.client.HTTPConnection, seen: Seen, attack: Attack, path: str) -> tuple[int, Any]:
    url = f"{path}?{attack.query}" if attack.query else path
    for is_first in (True, False):
        try:
            connection.request("POST", url, attack.body, {"Content-Type": attack.content_type})
            with connection.getresponse() as response:
                return response.status, seen.answer(attack.name, response.status, response.read())
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            if not is_first:  # the first time the connection may have been idle for too long
                seen.note("5xx", f"{attack.name}: no answer, {problem!r}")
    return 0, {}


def _connect(port: int, seen: Seen, row: dict[str, Any], canary: str) -> None:
    """Send bytes that are hardly HTTP, and senders that are slow."""
    for path in PATHS:
        for name, data in r3_http.connections(row, canary, path):
            _record(seen, name, r3_http.sent(serving.HOST, port, data))
    whole = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(r3_http.slow, serving.HOST, port, whole[: len(whole) - cut], 0.1, 55) for cut in range(8)]
        for wait in waits:
            _record(seen, "slow", wait.result())


def _record(seen: Seen, name: str, answer: bytes) -> None:
    statuses = [int(status) for status in STATUS.findall(answer)]
    seen.statuses.update(statuses or [None])
    seen.accepted |= {item.decode() for item in IDS.findall(answer)}
    for status in statuses:
        if status >= 500:
            seen.note("5xx", f"{name}: {answer[:300]!r}")


@contextmanager
def _listening() -> Iterator[tuple[str, list[str]]]:
    """Listen for a service that calls an address from a request; yield the address, and the calls."""
    calls: list[str] = []
    with socket.create_server((serving.HOST, 0)) as listener:

        def wait() -> None:
            while True:
                try:
                    connection, caller = listener.accept()
                except OSError:
                    return
                calls.append(f"a call from {caller}")
                connection.close()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        yield f"{serving.HOST}:{listener.getsockname()[1]}", calls
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield float(value)
