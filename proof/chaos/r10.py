"""Answers travel: what callers got and what the platform has are the same, each once.

A service process answers callers who keep the ids of their answers and ask again with the same key. Segments go
to a real S3 server behind a proxy that breaks, delays and repeats one request in ten. At fifteen points of shipping
the process at work is killed (SIGKILL): before and after the store has the segment, for a hello, answers, what another
process left behind, and a goodbye. Meanwhile two ingestions at once take the segments in, fifteen times; one of them is
killed at a writing request. The folder of the log survives, as in a container that restarts.
"""

import os
import random
import re
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from platform_assets.base.settings import Settings
from platform_assets.prediction_log import prediction_log
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.serving.log.outbox import PROCESS
from platform_assets.serving.run import build
from platform_assets.serving.run import child as serving
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.product_store import ProductStore
from proof.benchmarks.harness import Measure
from proof.doubles.asking import Callers
from tests.doubles import models, pods, received, s3_server
from tests.doubles.faulty_s3 import Fault, Faults, in_front_of
from tests.doubles.ingesting import KEYS, Ingestion
from tests.doubles.recorded import SPEC

BUCKET, SEED = "driftline-travel", 7
WAIT_S = 90.0
SHARE = 0.1
"""Share of requests that the proxy breaks, delays or repeats."""
INGESTION_WRITES = 24
"""Kills of ingestions are spread over this many writing requests of the two."""
HELLO, ANSWERS, LEFT, GOODBYE, HEARTBEAT = "hello", "answers", "left behind", "goodbye", "heartbeat"
POINTS = [
    (kind, is_done)
    for kind in (HELLO, ANSWERS, LEFT, GOODBYE, HEARTBEAT, ANSWERS, LEFT, HELLO)
    for is_done in (False, True)
][:15]
shown: list[str] = []


@dataclass
class Point:
    """A process that is killed at its next segment of a kind.

    Attributes:
        is_done: whether the store has the segment by then.
        pid: the only process that counts, 0 for any.
    """

    kind: str
    is_done: bool
    pid: int = 0

    def is_met(self, name: re.Match[str], holder: int) -> bool:
        is_own, has_body = holder == int(name["pid"]), name["stream"] != "none"
        if self.pid:
            return holder == self.pid
        kinds = {ANSWERS: is_own and has_body, LEFT: not is_own and has_body}
        return kinds.get(self.kind, is_own and not has_body)


class Proxy(Faults):
    """Kills at points, and breaks, delays and repeats other requests of the services."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.choice, self.guard = folder, random.Random(SEED), threading.Lock()
        self.point: Point | None = None
        self.killed: list[str] = []
        self.killed_at: list[int] = []
        self.disturbed = self.writes = self.ingestion_at = 0
        self.ingestion: Ingestion | None = None

    def meet(self, method: str, path: str) -> Fault | None:
        with self.guard:
            if "/prediction_log" in path:
                return self._of_a_service(method, path)
            return self._of_an_ingestion(method, path)

    def _of_a_service(self, method: str, path: str) -> Fault | None:
        name = re.search(
            r"/(\d{13})-(?P<process>.+-(?P<pid>\d+)-[0-9a-f]{8})-(?P<stream>none|\d{19}-[^/]+)-\d{12}\.", path
        )
        if method == "PUT" and name is not None and self.point is not None:
            holder = _holder(self.folder / f"{name['process']}{PROCESS}")
            if holder and self.point.is_met(name, holder):
                point, self.point = self.point, None
                return Fault(method, path, answer=0, is_done=point.is_done, then=lambda: self._kill(holder, point))
        if self.choice.random() < SHARE:
            self.disturbed += 1
            return self.choice.choice(
                [
                    Fault(method, path, answer=0),
                    Fault(method, path, answer=0, is_done=True),
                    Fault(method, path, answer=503),
                    Fault(method, path, answer=None, delay_s=0.5),
                    Fault(method, path, answer=None, repeats=1),
                ]
            )
        return None

    def _kill(self, pid: int, point: Point) -> None:
        os.kill(pid, signal.SIGKILL)
        self.killed.append(f"{point.kind}, {'after' if point.is_done else 'before'} the store had it")

    def _of_an_ingestion(self, method: str, path: str) -> Fault | None:
        if method in ("GET", "HEAD") or self.ingestion is None:
            return None
        self.writes += 1
        if self.writes < self.ingestion_at:
            return None
        victim, self.ingestion = self.ingestion, None
        victim.kill()
        self.killed.append("ingestion")
        self.killed_at.append(self.writes)
        return Fault(method, path, answer=0, is_done=bool(self.writes % 2))


class World:
    kubelet: pods.Kubelet

    def __init__(self, base: Path, server: s3_server.S3Server, proxy: Proxy) -> None:
        self.proxy = proxy
        self.environment = {**server.environment(proxy.endpoint), "TOKIO_WORKER_THREADS": "1"}
        variables = {
            "DRIFTLINE_STATE": str(base),
            "DRIFTLINE_ROOT": f"s3://{BUCKET}",
            "DRIFTLINE_SERVING_SHIPS": "true",
            "DRIFTLINE_SERVING_SHIP_S": "0.5",
        }
        self.settings = Settings.from_environment(variables)
        store = ArtifactStore(str(base / "workshop"))
        document = models.contract(product=SPEC.name, logs_features=False)
        self.bento = build.build(self.settings, store, models.write_bundle(store, document=document)).path
        self.product = ProductStore(SPEC, self.settings.replace(environment="cluster"))

    @property
    def folder(self) -> Path:
        return self.settings.prediction_log / SPEC.name

    def pid(self) -> int:
        """Return the living process as soon as it has a file in the folder."""
        _wait("the process", lambda: self.kubelet.server.process.pid in self._holders())
        return self.kubelet.server.process.pid

    def _holders(self) -> set[int | None]:
        return set(map(_holder, self.folder.glob(f"*{PROCESS}")))

    def round(self, callers: Callers, number: int) -> None:
        """Kill at one point of shipping, and one of two ingestions at once."""
        kind, is_done = POINTS[number]
        before = len(self.proxy.killed)
        self._arm(callers, kind, is_done)
        self.ingest(1 + (number * 7) % INGESTION_WRITES)
        while not _wait("", lambda: self.proxy.point is None, 20):
            self._arm(callers, kind, is_done)  # the process that was killed had left nothing
        callers.is_paused.clear()
        print(number, self.proxy.killed[before:], len(callers.acknowledged), flush=True)

    def ingest(self, killed_at: int) -> None:
        """Ingest twice at once; the first is killed at a writing request of both, if there are so many."""
        children = [self._ingestion() for _ in range(2)]
        self.proxy.writes, self.proxy.ingestion_at, self.proxy.ingestion = 0, killed_at, children[0]
        for child in children:
            child.begin()
        ended = [child.end() for child in children]
        self.proxy.ingestion = None
        assert ended[1] == 0 and ended[0] in (0, -9), ended

    def settle(self) -> None:
        """Wait until nothing of a process that has ended is left in the folder."""
        _wait("what was left behind", lambda: all(map(_holder, self.folder.glob(f"*{PROCESS}"))))
        self.pid()

    def _arm(self, callers: Callers, kind: str, is_done: bool) -> None:
        pid = self.pid()
        if kind == GOODBYE:
            os.kill(pid, signal.SIGTERM)
        self.proxy.point = Point(kind, is_done, pid if kind == GOODBYE else 0)
        if kind in (HELLO, LEFT):
            os.kill(pid, signal.SIGKILL)
            self.proxy.killed.append("process, at any moment")
        elif kind == HEARTBEAT:
            callers.is_paused.set()

    def _ingestion(self) -> Ingestion:
        return Ingestion(self.product, 400_000, {**self.environment, "POLARS_MAX_THREADS": "1"})


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as base, s3_server.running(_folder(Path(base, "s3"))) as server:
        server.make_bucket(BUCKET)
        state = _folder(Path(base, "state"))
        proxy = Proxy(state / "predictions" / SPEC.name)
        with in_front_of(server.endpoint, proxy), patch.dict(os.environ, server.environment()):
            world = World(state, server, proxy)
            port = serving.free_port()
            times = {
                "service_time": [f"{key}T14:00:00Z" for key in KEYS],
                "asked_at": [f"{key}T12:00:00Z" for key in KEYS],
            }
            with pods.Kubelet(world.settings, world.bento, port, world.environment) as world.kubelet:
                with Callers(port, pause_s=0.1, **times) as callers:
                    for number in range(len(POINTS)):
                        world.round(callers, number)
                    while sum(name == "ingestion" for name in world.proxy.killed) < len(POINTS):
                        world.ingest(1)
                world.settle()
            while list(world.folder.glob("*.jsonl")):  # a goodbye that the proxy broke
                print("a container restarts", flush=True)
                with pods.Kubelet(world.settings, world.bento, port, world.environment) as world.kubelet:
                    world.settle()
            acknowledged = callers.acknowledged
            arrived = received.ids(world.settings.root, SPEC.name)
            prediction_log.ingest_segments(world.product, "code", KEYS)
            stored = list(world.product.tables.read(STAGE, KEYS)["prediction_id"])
    kills = len(proxy.killed)
    shown.append("killed: " + "; ".join(f"{count} {name}" for name, count in sorted(Counter(proxy.killed).items())))
    shown.append(f"the two ingestions were killed at writing requests {', '.join(map(str, sorted(proxy.killed_at)))}")
    shown.append(f"{proxy.disturbed} other requests were broken, delayed or repeated; {len(arrived)} lines arrived.")
    ingestions = sum(name == "ingestion" for name in proxy.killed)
    return [
        Measure("processes killed at a point of shipping or at any moment", kills - ingestions, target=">= 15"),
        Measure("ingestions killed at a writing request", ingestions, target=">= 15"),
        Measure("answers that callers got", len(acknowledged)),
        Measure("of them not in segments", len(acknowledged - set(arrived)), target="<= 0"),
        Measure("answers in segments that no caller got", len(set(arrived) - acknowledged), target="<= 0"),
        Measure("answers that callers got and the platform has not", len(acknowledged - set(stored)), target="<= 0"),
        Measure("answers that the platform has and no caller got", len(set(stored) - acknowledged), target="<= 0"),
        Measure("answers that the platform has twice", len(stored) - len(set(stored)), target="<= 0"),
        Measure("files left in the log's folder", len(list(world.folder.glob("*.jsonl"))), target="<= 0"),
    ]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _wait(name: str, is_done: Callable[[], bool], wait_s: float = WAIT_S) -> bool:
    """Wait until something is done; return whether it was, or fail if `name` is not empty."""
    ends_s = time.monotonic() + wait_s
    while not is_done():
        if time.monotonic() >= ends_s:
            assert not name, f"{name}: not after {wait_s} s"
            return False
        time.sleep(0.1)
    return True


def _holder(path: Path) -> int:
    """Return the process that holds the lock on a file, 0 if none does."""
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return 0
    match = re.search(rf"FLOCK\s+ADVISORY\s+WRITE (\d+) \S+:{inode} ", Path("/proc/locks").read_text(encoding="utf-8"))
    return int(match[1]) if match else 0
