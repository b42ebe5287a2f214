"""When each victim of row R6's storm was back: by what sign, and a thread that looks for it.

Each kind of victim has a sign of its own, which the victim itself or its successor gives: a process that exists is not
back. Seconds count from the kill to the look that saw the sign, and contain what was down on purpose.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import obstore
import psycopg2
import urllib3
from kubernetes import client

from platform_assets.base.problems import Problem
from platform_assets.store import objects
from tests.benchmarks.harness import Measure
from tests.cluster import proxy
from tests.cluster.node import conditions_of
from tests.cluster.platform import NAMESPACE, Platform
from tests.doubles.postgres_server import PostgresServer

LOOK_S, ANSWER_S = 0.5, 5.0
TROUBLE = (
    client.ApiException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    obstore.exceptions.BaseError,
    psycopg2.Error,
    Problem,
    RuntimeError,
    OSError,
)
"""What a look meets while something is down."""
HEARTBEATS = "SELECT bool_and(timestamp > %s) FROM daemon_heartbeats"
STARTED = "SELECT count(*) > 0 FROM runs WHERE pipeline_name = %s AND start_time > %s"
WRITTEN = """
SELECT greatest((SELECT max(timestamp) FROM event_logs), (SELECT max(timestamp) FROM daemon_heartbeats),
                (SELECT max(timestamp) FROM job_ticks)) > %s
"""


@dataclass(frozen=True)
class Sign:
    """What shows that a victim is back, and whether it can be seen now."""

    text: str
    is_seen: Callable[[], bool]


@dataclass
class Recovery:
    """A victim, and after how many seconds it was back; None until then."""

    number: int
    victim: str
    at: datetime
    sign: Sign
    seconds: float | None = None

    def __str__(self) -> str:
        after = "not seen before the end" if self.seconds is None else f"after {self.seconds:.1f} s"
        return f"back {after}: {self.sign.text}"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Recoveries:
    """All victims, in the order of their kills."""

    all: list[Recovery] = field(default_factory=list)
    now: Callable[[], datetime] = _now

    def add(self, number: int, victim: str, at: datetime, sign: Sign) -> None:
        self.all.append(Recovery(number, victim, at, sign))

    @property
    def pending(self) -> list[Recovery]:
        return [one for one in self.all if one.seconds is None]

    def look(self) -> None:
        """Look for each sign that was not seen yet."""
        for one in self.pending:
            try:
                is_seen = one.sign.is_seen()
            except TROUBLE:
                continue
            if is_seen:
                one.seconds = (self.now() - one.at).total_seconds()
                print(f"  kill {one.number}, {one.victim}: {one}", flush=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again in a thread, which is in the network of this one."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(LOOK_S):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def measures(recoveries: Sequence[Recovery]) -> list[Measure]:
    """Return a line per kind of victim, with the seconds of its slowest kill, and how many never came back."""
    kinds: dict[str, list[Recovery]] = defaultdict(list)
    for one in recoveries:
        kinds[one.victim].append(one)
    lines = []
    for victim, of_kind in kinds.items():
        seconds = {f"kill {one.number}": one.seconds for one in of_kind if one.seconds is not None}
        slowest = max(seconds.values()) if len(seconds) == len(of_kind) else None
        lines.append(Measure(measure=f"s until back: {victim}", ours=slowest, peers=seconds))
    missing = sum(one.seconds is None for one in recoveries)
    return [*lines, Measure(measure="victims that were not seen again", ours=missing, target="<= 0")]


# Signs


def started_again(postgres: PostgresServer, job: str, at: datetime) -> Sign:
    """A run of the same job that Dagster has from itself that it started."""
    return Sign(f"the next run of {job} has started", lambda: bool(_ask(postgres, STARTED, job, at.timestamp())))


def heartbeats(postgres: PostgresServer, at: datetime) -> Sign:
    """A heartbeat of each of the daemon's threads."""
    return Sign("each of its threads has written a heartbeat", lambda: bool(_ask(postgres, HEARTBEATS, at)))


def written_to_database(postgres: PostgresServer, at: datetime) -> Sign:
    """An event, heartbeat or tick that was made after the kill and is committed."""
    return Sign("the platform's first write is committed", lambda: bool(_ask(postgres, WRITTEN, at)))


def _ask(postgres: PostgresServer, query: str, *values: object) -> Any:
    place = postgres.environment()
    with closing(
        psycopg2.connect(
            host=place["DAGSTER_PG_HOST"],
            port=place["DAGSTER_PG_PORT"],
            dbname=place["DAGSTER_PG_DB"],
            user=place["DAGSTER_PG_USER"],
            password=place["DAGSTER_PG_PASSWORD"],
            connect_timeout=int(ANSWER_S),
        )
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(query, values)
        return cursor.fetchone()[0]


def written_to_store(root: str, at: datetime) -> Sign:
    """An object of anybody's that the store dates after the kill."""

    def is_seen() -> bool:
        listed = obstore.list(objects.open_store(root)).collect()
        return any(item["last_modified"] > at for item in listed)

    return Sign("the platform's first write is in it", is_seen)


def answered(platform: Platform) -> Sign:
    """An answer of the webserver to somebody behind the proxy."""

    def is_seen() -> bool:
        place = urlsplit(platform.address(proxy.NAME))
        with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=ANSWER_S)) as connection:
            body = json.dumps({"query": "{ runsOrError(limit: 1) { __typename } }"})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            return connection.getresponse().status == 200

    return Sign("it answers through the proxy", is_seen)


def api_answers(platform: Platform) -> Sign:
    """An answer of the API server."""
    return Sign("it lists pods", lambda: bool(platform.cluster.core.list_namespaced_pod(NAMESPACE, limit=1).items))


def ready_again(platform: Platform, hit: Collection[Any], before: Collection[object] | None = None) -> Sign:
    """As many ready pods of each Deployment as it should have, not counting pods as they were when they were hit.

    Args:
        before: signatures of pods that do not count; None: those of `hit`.
    """
    before = {signature(pod) for pod in hit} if before is None else before
    names = sorted({name for pod in hit if (name := deployment_of(pod)) is not None})
    deployments = client.AppsV1Api(platform.cluster.api)

    def is_seen() -> bool:
        expected = {name: deployments.read_namespaced_deployment(name, NAMESPACE).spec.replicas for name in names}
        return are_ready(platform.pods(), expected, before)

    return Sign(f"all pods of {', '.join(names)} are ready", is_seen)


def connected_again(platform: Platform, node: str, hit: Collection[Any], at: datetime) -> Sign:
    """A node that was given up after its cable was cut and is ready again, and then ready pods, whichever they are.

    Pods that stayed on it may be exactly as they were: their kubelet never knew that they were not ready.
    """
    pods = ready_again(platform, hit, before=())

    def is_seen() -> bool:
        return came_back(platform.cluster.core.read_node(node), at) and pods.is_seen()

    return Sign(f"{node} was given up and is ready again, and {pods.text}", is_seen)


def came_back(node: Any, at: datetime) -> bool:
    """Return whether a node has become ready since a moment."""
    ready = next(one for one in node.status.conditions if one.type == "Ready")
    return ready.status == "True" and ready.last_transition_time > at


def are_ready(pods: Sequence[Any], expected: Mapping[str, int], before: Collection[object]) -> bool:
    """Return whether each Deployment has its number of ready pods, without those that are as they were."""
    ready = [
        deployment_of(pod)
        for pod in pods
        if pod.metadata.deletion_timestamp is None
        and conditions_of(pod).get("Ready") == "True"
        and signature(pod) not in before
    ]
    return all(ready.count(name) >= count for name, count in expected.items())


def signature(pod: Any) -> tuple[object, ...]:
    """Return what is another after a pod was replaced, its container killed, or its node given up for a while."""
    containers = sorted(status.container_id or "" for status in pod.status.container_statuses or ())
    changed = [one.last_transition_time for one in pod.status.conditions or () if one.type == "Ready"]
    return (pod.metadata.uid, *containers, *changed)


def deployment_of(pod: Any) -> str | None:
    """Return the name of a pod's Deployment, None for the pod of a run or a step."""
    owners = {owner.kind for owner in pod.metadata.owner_references or ()}
    return str(pod.metadata.name).rsplit("-", 2)[0] if "ReplicaSet" in owners else None
