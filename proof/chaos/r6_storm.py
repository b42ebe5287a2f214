"""Kill pods, nodes and servers of a cluster while a loop is at work in it: the storm of row R6.

Everything happens in the thread of the row: while it waits for something it lets the storm look, and the storm kills
what is next as soon as that is doing what the kill is for. A kill that turns out to have hit nothing is repeated.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from kubernetes import client

from platform_assets.base import naming
from platform_assets.kubernetes.manifest import FACTS
from platform_assets.store.ledgers import Ledgers
from tests.cluster import cleanup, proxy
from tests.cluster.loop import OWN
from tests.cluster.node import Node
from tests.cluster.platform import NAMESPACE, Platform
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products.live_parts import SPEC
from tests.doubles.s3_server import S3Server

SHIPPING, INGESTION = "shipping", "ingestion"
PAUSE_S, SPIN_S, CLAIM_S, LOOK_S, TRAINING_S = 6.0, 1.5, 6.0, 0.001, 20.0
"""`CLAIM_S`: how long an open claim is looked for during a run, because it is open for less than a second."""
DOWN_S, CUT_S = 10.0, 45.0
"""How long a server is down, and a node: a replica on it is given up after 20 s."""
VOLUME = "volumes/kubernetes.io~empty-dir/state/predictions"
SERVICES = "10.96.0.0/16"
ADVANCE = naming.job("advance", SPEC.name)
Result = TypeVar("Result")
TROUBLE = (client.ApiException, urllib3.exceptions.HTTPError, RuntimeError, OSError)
"""What a look meets while something comes back."""


@dataclass(frozen=True)
class Hit:
    """A kill that met its victim at work.

    Attributes:
        doing: what the victim was doing.
        heal, down_s: brings back what does not come back by itself, after so many seconds.
        lost: ids of answers that were on a killed volume, and that its pod did not know to be in the store.
        cut_off: ids of answers on volumes that were cut off, and that their pods did not know to be in the store.
        at: when it died.
    """

    doing: str
    heal: Callable[[], None] | None = None
    down_s: float = 0.0
    lost: frozenset[str] = frozenset()
    cut_off: frozenset[str] = frozenset()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Kill:
    """A kill that is due from a phase of the loop on.

    Attributes:
        aim: kills the victim if it is at work now.
        moment: what it falls into: shipping, ingestion, or anything else.
    """

    victim: str
    phase: int
    aim: Callable[[Storm], Hit | None]
    moment: str = ""


@dataclass(frozen=True)
class Record:
    kill: Kill
    hit: Hit
    after_s: float

    def __str__(self) -> str:
        return f"{self.after_s:.0f} s: {self.kill.victim}: {self.hit.doing}"


class Missed(Exception):
    """The victim had finished before it died: the kill is repeated."""


@dataclass
class Storm:
    """Kills, and heals.

    Attributes:
        phase: of the loop.
        missed: kills that hit nothing.
        problems: what looks met while something was coming back.
    """

    platform: Platform
    s3: S3Server
    postgres: PostgresServer
    pending: list[Kill] = field(default_factory=lambda: list(KILLS))
    phase: int = 0
    log: list[Record] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)
    _healing: tuple[float, Callable[[], None]] | None = None
    _calm_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.ledgers = Ledgers(self.platform.settings.root, SPEC.name)

    @property
    def is_down(self) -> bool:
        """Whether something is down that others need to see anything."""
        return self._healing is not None

    @property
    def has_to_hit_shipping(self) -> bool:
        """Whether a kill of this phase or an earlier one that falls into shipping is still to come."""
        return any(kill.phase <= self.phase and kill.moment == SHIPPING for kill in self.pending)

    def look(self) -> None:
        now_s = time.monotonic()
        if self._healing is not None:
            if now_s >= self._healing[0]:
                self._healing[1]()
                self._healing, self._calm_until_s = None, time.monotonic() + PAUSE_S
            return
        if now_s < self._calm_until_s:
            return
        for kill in [kill for kill in self.pending if kill.phase <= self.phase]:
            if self._attempt(kill):
                return

    def _attempt(self, kill: Kill) -> bool:
        try:
            hit = kill.aim(self)
        except Missed as missed:
            self.missed.append(f"{kill.victim}: {missed}")
            print(f"  missed: {self.missed[-1]}", flush=True)
            self._calm_until_s = time.monotonic() + PAUSE_S
            return True
        except TROUBLE as problem:
            self.problems.append(f"{kill.victim}: {type(problem).__name__} {str(problem)[:200]}")
            return False
        if hit is None:
            return False
        self.pending.remove(kill)
        self.log.append(Record(kill, hit, time.monotonic() - self.began_s))
        print(f"  kill {len(self.log)}, {self.log[-1]}", flush=True)
        self._calm_until_s = time.monotonic() + PAUSE_S
        if hit.heal is not None:
            self._healing = (time.monotonic() + hit.down_s, hit.heal)
        return True

    # What there is to kill

    def running(self, selector: str = "") -> list[Any]:
        """Return the pods whose container runs."""
        return [
            pod
            for pod in self.platform.pods(selector)
            if pod.metadata.deletion_timestamp is None
            and any(status.state.running for status in pod.status.container_statuses or ())
        ]

    def runs(self, job: str | None = None) -> list[Any]:
        """Return the pods of runs, of one job or all."""
        pods = [pod for pod in self.running("dagster/run-id") if _are_alive(self.processes([pod]))]
        return [pod for pod in pods if job is None or pod.metadata.labels.get("dagster/job") == job]

    def at_work(self) -> str:
        """Return what is at work, for a sentence; empty if nothing is."""
        names = [f"run of {pod.metadata.labels.get('dagster/job')}" for pod in self.runs()]
        return ", ".join([*names, *(f"step {pod.metadata.labels['driftline/step']}" for pod in self.steps())])

    def steps(self) -> list[Any]:
        """Return the pods of steps whose processes live, which the API may not know yet."""
        return [pod for pod in self.running("driftline/step") if _are_alive(self.processes([pod]))]

    def node(self, pod: Any) -> Node:
        return next(node for node in self.platform.cluster.nodes if node.name == pod.spec.node_name)

    def last_line(self, pod: Any) -> str:
        text = self.platform.kubectl("logs", pod.metadata.name, "--tail=1").strip()
        return text.rpartition(" - ")[2][-160:] or "no line yet"

    def processes(self, pods: Sequence[Any]) -> list[int]:
        """Return the processes of the pods' containers, as this machine counts."""
        control = self.platform.cluster.control
        assert control is not None
        names = {status.container_id.rpartition("/")[2] for pod in pods for status in pod.status.container_statuses}
        roots = cleanup.cgroups(control.folder.name)
        root = next((root for root in roots if root.parent.name == "memory"), roots[0])
        files = [file for file in root.rglob("cgroup.procs") if file.parent.name in names]
        return [int(pid) for file in files for pid in file.read_text(encoding="ascii").split() if pid != "0"]

    # The answers on a pod's volume

    def folder(self, pod: Any) -> Path:
        """Return the folder of a pod's prediction log, on the disk of its node."""
        return self.node(pod).disk / "lib/kubelet/pods" / pod.metadata.uid / VOLUME / SPEC.name

    def unshipped(self, pod: Any) -> frozenset[str]:
        """Return the ids of the answers on a pod's volume that it does not know to be in the store."""
        return frozenset(_unshipped(self.folder(pod)))

    def open_claim(self) -> int | None:
        """Return the claim whose answers are being stored now."""
        number, _ = self.ledgers.latest(naming.CLAIMS) or (0, {})
        _, newest = self.ledgers.latest(naming.INGESTED) or (0, {"claim": 0})
        return number if number > newest["claim"] else None


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def spin(look: Callable[[], Result | None], patience_s: float = SPIN_S) -> Result | None:
    """Look again and again, for a moment; return what was seen, or None."""
    until_s = time.monotonic() + patience_s
    while (result := look()) is None and time.monotonic() < until_s:
        time.sleep(LOOK_S)
    return result


def _unshipped(folder: Path) -> Iterator[str]:
    for path in folder.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            try:
                start = int(path.with_suffix(".shipped").read_bytes())
            except (FileNotFoundError, ValueError):
                start = 0
            whole = data[start : data.rfind(b"\n") + 1]
            yield from (json.loads(line)["prediction_id"] for line in whole.splitlines())


# Aims: each kills its victim if it is at work now


def _part(name: str) -> Callable[[Storm], Hit | None]:
    """Aim at daemon or code server while a run is under way."""

    def aim(storm: Storm) -> Hit | None:
        pods, work = storm.running(f"app.kubernetes.io/component={name}"), storm.at_work()
        if not pods or not work:
            return None
        doing = f"at work: {work}; its last line: {storm.last_line(pods[0])}"
        at = datetime.now(UTC)
        kill(storm.processes(pods))
        return Hit(doing, at=at)

    return aim


def _webserver(storm: Storm) -> Hit | None:
    """Aim at the webserver while it answers a request for all runs."""
    pods = storm.running("app.kubernetes.io/component=webserver")
    if not pods:
        return None
    pids, place = storm.processes(pods), urlsplit(storm.platform.address(proxy.NAME))
    query = {"query": "{ runsOrError(limit: 50) { ... on Runs { results { runId status stats { __typename } } } } }"}
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    connection.request("POST", "/graphql", json.dumps(query), {"Content-Type": "application/json"})
    at = datetime.now(UTC)
    kill(pids)
    try:
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as problem:
        doing = f"answering a request for all runs, which broke: {type(problem).__name__}"
        return Hit(doing, at=at)
    finally:
        connection.close()
    raise Missed("the request was answered")


def _run(job: str) -> Callable[[Storm], Hit | None]:
    def aim(storm: Storm) -> Hit | None:
        pods = storm.runs(job)
        if not pods:
            return None
        pids, line = storm.processes(pods), storm.last_line(pods[0])
        if line == "no line yet" or not _are_alive(pids):
            return None
        at = datetime.now(UTC)
        kill(pids)
        return Hit(f"{job}: {line}", at=at)

    return aim


def _step(storm: Storm) -> Hit | None:
    pods = [pod for pod in storm.steps() if pod.metadata.labels["driftline/step"] == "train"]
    if not pods:
        return None
    pids = storm.processes(pods)
    steps_done = spin(lambda: _steps_done(storm, pods[0]), TRAINING_S)
    if steps_done is None or not _are_alive(pids):
        return None
    at = datetime.now(UTC)
    kill(pids)
    return Hit(f"training with the lease, {steps_done} steps at its last sign of life", at=at)


def _steps_done(storm: Storm, pod: Any) -> int | None:
    """Return how many steps a training has done in this pod, None before it has the lease."""
    facts = json.loads(pod.metadata.annotations[FACTS])
    ledger = f"{naming.LEASES}/{facts['fingerprint']}"
    progress: Any = storm.ledgers.read(ledger, f"{storm.ledgers.newest_number(ledger)}.progress") or {}
    return int(progress["steps_done"]) if progress.get("id") == facts["id"] else None


def _api_server(storm: Storm) -> Hit | None:
    """Aim at the API server while a step's pod runs."""
    control = storm.platform.cluster.control
    assert control is not None
    if not storm.steps():
        return None
    work = storm.at_work()
    server = next(item for item in reversed(control.space.services) if item.name == "kube-apiserver")
    at = datetime.now(UTC)
    server.kill()
    return Hit(f"at work: {work}", control.start_api_server, DOWN_S, at=at)


def _server(name: str, *, needs: Callable[[Storm], str | None]) -> Callable[[Storm], Hit | None]:
    """Aim at PostgreSQL or the S3 server, which is started on its files afterwards."""

    def aim(storm: Storm) -> Hit | None:
        doing = needs(storm)
        if doing is None:
            return None
        server: Any = storm.postgres if name == "PostgreSQL" else storm.s3
        at = datetime.now(UTC)
        server.program.kill()
        return Hit(doing, server.start_again, DOWN_S, at=at)

    return aim


def _ingesting(storm: Storm) -> str | None:
    if not storm.runs(ADVANCE) or (claim := spin(storm.open_claim, CLAIM_S)) is None:
        return None
    return f"the answers of claim {claim} were being stored"


def _working(storm: Storm) -> str | None:
    work = storm.at_work()
    return f"at work: {work}" if work else None


def _shipping(storm: Storm) -> str | None:
    folders = [storm.folder(pod) for pod in storm.running(OWN)]
    notes = spin(lambda: [path for folder in folders for path in folder.glob("*.shipping")] or None)
    return f"{len(notes)} segments were under way to it" if notes else None


def _run_that_ingests(storm: Storm) -> Hit | None:
    """Aim at a run whose claim's answers are being stored."""
    pods = storm.runs(ADVANCE)
    if not pods:
        return None
    pids = storm.processes(pods)
    claim = spin(storm.open_claim, CLAIM_S)
    if claim is None:
        return None
    at = datetime.now(UTC)
    kill(pids)
    time.sleep(0.3)  # a request that was under way may still arrive
    if storm.open_claim() != claim:
        raise Missed(f"claim {claim} was finished")
    doing = f"{ADVANCE}: the answers of claim {claim} were being stored, and were not recorded as stored"
    return Hit(doing, at=at)


def _service_that_ships(storm: Storm) -> Hit | None:
    """Aim at a container of the service with a segment under way; its volume stays."""
    pods = storm.running(OWN)
    targets = {storm.folder(pod): (pod, storm.processes([pod])) for pod in pods}

    note = spin(lambda: next((path for folder in targets for path in folder.glob("*.shipping")), None))
    if note is None:
        return None
    pod, pids = targets[note.parent]
    at = datetime.now(UTC)
    kill(pids)
    if not note.exists():
        raise Missed("the segment was settled")
    doing = f"a segment was under way, {len(storm.unshipped(pod))} answers were not known to be in the store"
    return Hit(doing, at=at)


def _service_with_its_volume(storm: Storm) -> Hit | None:
    """Aim at a pod of the service with answers that are not in the store, and at its volume."""
    pods = [pod for pod in storm.running(OWN) if len(storm.unshipped(pod)) >= 3]
    if not pods:
        return None
    pids, name = storm.processes(pods[:1]), pods[0].metadata.name
    storm.platform.cluster.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
    kill(pids)
    at, lost = datetime.now(UTC), storm.unshipped(pods[0])
    if not lost:
        raise Missed("everything was in the store")
    doing = f"serving, {len(lost)} answers were not in the store, and its volume goes"
    return Hit(doing, lost=lost, at=at)


def _node(*, is_power: bool) -> Callable[[Storm], Hit | None]:
    """Aim at a node with replicas that have answers which are not in the store."""

    def aim(storm: Storm) -> Hit | None:
        pods = [pod for pod in storm.running(OWN) if len(storm.unshipped(pod)) >= 2]
        if not pods:
            return None
        node = storm.node(pods[0])
        everything = [pod for pod in storm.running() if pod.spec.node_name == node.name]
        mine = [pod for pod in storm.running(OWN) if pod.spec.node_name == node.name]
        at = datetime.now(UTC)
        if is_power:
            node.power_off()
        else:
            node.cable.cut()
        lost = frozenset(identity for pod in mine for identity in storm.unshipped(pod))
        # Callers reach the Service by the other node.
        control = storm.platform.cluster.control
        assert control is not None
        (other,) = (item for item in storm.platform.cluster.nodes if item is not node)
        control.space.shell(f"ip route replace {SERVICES} via {other.cable.address}")
        others = ", ".join(sorted({_kind(pod) for pod in everything}))
        text = f"{node.name} with {len(mine)} replicas, {len(lost)} answers not in the store; on it: {others}"
        heal = partial(_bring_back, storm, node, is_power=is_power)
        return Hit(text, heal, CUT_S, **{"lost" if is_power else "cut_off": lost}, at=at)

    return aim


def _kind(pod: Any) -> str:
    labels = pod.metadata.labels
    kinds = ("app.kubernetes.io/component", "driftline/step", "dagster/job")
    return next((str(labels[kind]) for kind in kinds if kind in labels), pod.metadata.name)


def _bring_back(storm: Storm, node: Node, *, is_power: bool) -> None:
    control = storm.platform.cluster.control
    assert control is not None
    if node.number == 1:  # its cable leads to the Services again
        control.space.shell(f"ip route del {SERVICES}")
    if is_power:
        node.power_on()
    else:
        node.cable.plug()
    storm.platform.cluster.wait_for_node(node.name)


def _are_alive(pids: Sequence[int]) -> bool:
    return bool(pids) and all(Path(f"/proc/{pid}").exists() for pid in pids)


KILLS = (
    Kill("run", 0, _run(ADVANCE)),
    Kill("daemon", 0, _part("daemon")),
    Kill("step", 0, _step),
    Kill("API server", 0, _api_server),
    Kill("service container", 1, _service_that_ships, SHIPPING),
    Kill("run", 1, _run_that_ingests, INGESTION),
    Kill("webserver", 1, _webserver),
    Kill("service pod with its volume", 2, _service_with_its_volume, SHIPPING),
    Kill("PostgreSQL", 2, _server("PostgreSQL", needs=_ingesting), INGESTION),
    Kill("code server", 2, _part("code")),
    Kill("node, power", 3, _node(is_power=True), SHIPPING),
    Kill("S3 server", 3, _server("S3", needs=_ingesting), INGESTION),
    Kill("daemon", 3, _part("daemon")),
    Kill("node, cable", 4, _node(is_power=False), SHIPPING),
    Kill("S3 server", 4, _server("S3", needs=_shipping), SHIPPING),
    Kill("run", 4, _run(ADVANCE)),
    Kill("step", 5, _step),
    Kill("API server", 5, _api_server),
    Kill("PostgreSQL", 5, _server("PostgreSQL", needs=_working)),
    Kill("code server", 5, _part("code")),
)
