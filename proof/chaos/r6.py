"""The loop on a cluster under twenty kills.

A live product's loop runs between pods that share nothing but the store: batches land, are learned, served and asked
about; from the ninth on other parts break, and a new model is trained. Meanwhile pods of each kind, nodes, the API
server, PostgreSQL and the S3 server are killed. Callers keep the ids of their answers. A calm run on a laptop gets the
same files and questions, less those whose answers went with a killed volume: everything else must be equal.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import obstore
from kubernetes import client

from platform_assets.base.problems import Problem
from platform_assets.base.settings import REPOSITORY
from platform_assets.kubernetes import service_manifests
from platform_assets.serving.run import child as serving
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import Service
from platform_assets.store.tables import TableStore
from proof.benchmarks.harness import Measure
from proof.chaos.r6_storm import KILLS, TROUBLE, Record, Storm
from tests.cluster import graphql, loop, names, opened, platform_images, proxy, servers, trainer
from tests.cluster.callers import Callers
from tests.cluster.cluster import started
from tests.cluster.laptop import Laptop
from tests.cluster.loop import BUCKET, CHANGED, OWN, REPLICAS, SMALL
from tests.cluster.node import conditions_of
from tests.cluster.platform import NAMESPACE, Platform
from tests.cluster.requirements import ASSETS, missing
from tests.doubles import cluster_environment
from tests.doubles.products import live_parts
from tests.doubles.products.live_parts import LEARNED, SPEC
from tests.doubles.received import Arrived

SHIP_S, LOOK_S = 10.0, 1.0
"""The setting of services: an answer waits at most so long for its segment, and a look."""
QUIET_S, PATIENCE_S, BACK_S = 20.0, 900.0, 120.0
UNDER_WAY = "[QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]"
RUNS = "{ runsOrError(filter: {statuses: %s}) { ... on Runs { results { runId jobName status } } } }"
shown: list[str] = []


@dataclass
class World:
    """The cluster's loop and the laptop's, and the storm.

    Attributes:
        lost: ids that callers got and the store never did.
    """

    platform: Platform
    laptop: Laptop
    storm: Storm
    lost: set[str] = field(default_factory=set)

    def wait(self, condition: Callable[[], object], text: str, patience_s: float = PATIENCE_S) -> None:
        until_s = time.monotonic() + patience_s
        while True:
            self.storm.look()
            if not self.storm.is_down and self._is(condition):
                return
            if time.monotonic() > until_s:
                raise TimeoutError(f"waited {patience_s:g} s in vain until {text}\n{self.platform.described()}")
            time.sleep(0.3)

    def _is(self, condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except (*TROUBLE, Problem, obstore.exceptions.BaseError) as problem:  # something comes back
            self.storm.problems.append(f"a look: {type(problem).__name__} {str(problem)[:200]}")
            return False

    def learn(self) -> None:
        """Land the first batches; wait for the first release, and serve it."""
        for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
            loop.land((self.laptop.settings, self.platform.settings), live_parts.files(index, at))
        key = SPEC.grain.key_at
        with self._on_laptop(("advance", key(0), key(LEARNED - 1)), ("retrain", key(LEARNED))):
            self.wait(lambda: loop.newest_release(self.platform.settings)[0] == 1, "release 1")
        self.platform.apply(
            service_manifests.manifests(ProductStore(SPEC, self.platform.settings), REPLICAS), "service"
        )
        self.platform.wait_for(service_manifests.name_of(SPEC.name))
        self.wait(lambda: loop.served(self.platform) == [1] * REPLICAS, "all replicas serve release 1")

    def ask(self, callers: Callers, server: serving.Server, index: int) -> None:
        """Ask about a batch; find out which answers are lost; ask the laptop the others."""
        rows = live_parts.rows(index, is_changed=True)
        before = set(callers.acknowledged)
        with callers.asking([live_parts.question(row, datetime.now(UTC)) for row in rows]) as is_done:
            self.wait(lambda: is_done.is_set() and not self.storm.has_to_hit_shipping, "answers")
        self._settle(callers)
        for identity in callers.acknowledged.keys() - before - self.lost:
            status, answer = server.predict(callers.asked[identity])
            assert status == 200 and answer["prediction_id"] == identity, (status, answer)

    def _settle(self, callers: Callers) -> None:
        """Wait until all replicas are there and nothing more arrives; what has not is lost."""
        arrived = Arrived(self.platform.settings.root, SPEC.name)
        seen = [(set[str](), time.monotonic())]

        def is_quiet() -> bool:
            left = callers.acknowledged.keys() - arrived.look()
            pods = self.platform.pods(OWN)
            is_whole = len(pods) == REPLICAS == len(self.storm.running(OWN))
            if not is_whole or left != seen[0][0]:
                seen[0] = (set(left), time.monotonic())
            return time.monotonic() - seen[0][1] > QUIET_S

        self.wait(is_quiet, "nothing more arrives")
        self.lost = seen[0][0]

    def close(self, index: int) -> None:
        key, files = SPEC.grain.key_at(index), live_parts.files(index, datetime.now(UTC), is_changed=True)
        loop.land((self.laptop.settings, self.platform.settings), files)
        with self._on_laptop(("advance", key, key)):
            self.wait(lambda: loop.decision(self.platform.settings, key), f"there is a decision for {key}")

    def learn_again(self) -> None:
        """Wait for the second release, and until all replicas serve it."""
        with self._on_laptop(("retrain", SPEC.grain.key_at(CHANGED[-1] + 1))):
            self.wait(lambda: loop.newest_release(self.platform.settings)[0] == 2, "release 2")
        self.wait(lambda: loop.served(self.platform) == [2] * REPLICAS, "all replicas serve release 2")

    @contextmanager
    def _on_laptop(self, *jobs: tuple[str, ...]) -> Iterator[None]:
        """Run jobs on the laptop meanwhile, one after another."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            results = [pool.submit(self.laptop.job, *job) for job in jobs]
            yield
            for result in results:
                result.result()

    def unready(self) -> list[str]:
        """Return the Deployments that lack a ready pod, and the nodes that are not ready."""
        cluster = self.platform.cluster
        deployments = client.AppsV1Api(cluster.api).list_namespaced_deployment(NAMESPACE).items
        short = [one for one in deployments if (one.status.ready_replicas or 0) < one.spec.replicas]
        away = [node for node in cluster.core.list_node().items if conditions_of(node).get("Ready") != "True"]
        return [one.metadata.name for one in (*short, *away)]

    def under_way(self) -> list[Any]:
        answer = graphql.ask(self.platform.address(proxy.NAME), RUNS % UNDER_WAY)
        return list(answer["runsOrError"]["results"])


def run() -> list[Measure]:
    with _opened() as world:
        callers, hanging = _play(world)
        mine, calm = (loop.content(settings) for settings in (world.platform.settings, world.laptop.settings))
        differ = {kind: _differ(kind, mine[kind], calm[kind]) for kind in calm}
        shared = loop.shared(world.platform)
        storm = world.storm
        kinds = Counter(record.kill.victim for record in storm.log)
        lost_ids = frozenset[str]().union(*(record.hit.lost for record in storm.log))
        ages = [
            min(
                (record.hit.at - callers.acknowledged[identity]).total_seconds()
                for record in storm.log
                if identity in record.hit.lost
            )
            for identity in sorted(world.lost & lost_ids)
        ]
        broken = {status: count for status, count in callers.statuses.items() if status != 200}
        requests = f"{callers.statuses[200]} requests got 200; others by status (0: none): {broken}; callers ask again."
        shown[:] = [
            *(f"Kill {number}, after {record}." for number, record in enumerate(storm.log, start=1)),
            f"Repeated, because the first hit nothing: {'; '.join(storm.missed) or 'none'}.",
            f"Not killed: {', '.join(kill.victim for kill in storm.pending) or 'none'}.",
            requests,
            f"Lost with a volume: {', '.join(sorted(world.lost & lost_ids)) or 'none'}.",
            *(_lost_otherwise(storm.log, one, callers.acknowledged[one]) for one in sorted(world.lost - lost_ids)),
            *(f"Seen of another pod: {problem}." for problem in shared),
        ]
        travelling = Counter(record.kill.moment for record in storm.log if record.kill.moment)
        return [
            Measure("kills", len(storm.log), peers=dict(kinds), target=f">= {len(KILLS)}"),
            Measure("in shipping or ingestion", travelling.total(), peers=dict(travelling), target=">= 6"),
            Measure("Deployments and nodes that are not back", len(world.unready()), target="<= 0"),
            *(Measure(f"{kind} that differ", count, target="<= 0") for kind, count in differ.items()),
            Measure("answers that callers got", len(callers.acknowledged)),
            Measure("of them lost with a killed volume", len(world.lost & lost_ids)),
            Measure("lost otherwise", len(world.lost - lost_ids), target="<= 0"),
            Measure(
                "age of the oldest lost answer at its kill, s",
                max(ages, default=0.0),
                limit=SHIP_S,
                target=f"<= {SHIP_S + LOOK_S:g}",
            ),
            Measure("runs left under way", len(hanging), target="<= 0"),
            Measure("volumes or files that another pod sees", len(shared), target="<= 0"),
        ]


@contextmanager
def _opened() -> Iterator[World]:
    if sentence := missing(os.environ) or trainer.missing(os.environ):
        raise RuntimeError(sentence)
    built = trainer.trainer_image(REPOSITORY)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftline-", ignore_cleanup_errors=True)))
        cluster = stack.enter_context(started(Path(os.environ[ASSETS])))
        print(f"{cluster.kubeconfig} after {cluster.started_s:.0f} s", flush=True)
        (folder / "s3").mkdir()
        s3 = stack.enter_context(servers.s3_running(cluster, folder / "s3", BUCKET))
        postgres = stack.enter_context(servers.postgres_running(cluster))
        images = platform_images.pushed(cluster, REPOSITORY, built, live_parts)
        stack.enter_context(cluster.network())
        stack.enter_context(patch.dict(os.environ, opened.store_environment(s3), clear=True))
        names.serve_names(cluster, folder)
        place = folder / "platform"
        place.mkdir()
        platform = stack.enter_context(loop.at_work(cluster, images, s3, postgres, place))
        checkout = cluster_environment.checkout(REPOSITORY, folder / "checkout", live_parts)
        laptop = Laptop(checkout, folder / "laptop", SPEC.name, SMALL)
        yield World(platform, laptop, Storm(platform, s3, postgres))


def _play(world: World) -> tuple[Callers, list[Any]]:
    """Return the callers, and the runs that are still under way when nothing is left to do."""
    key, storm = SPEC.grain.key_at, world.storm
    world.learn()
    tag = Service.of(TableStore(world.laptop.settings.root, SPEC.name).records("service")[key(LEARNED)]).tag
    callers = Callers(world.platform.address(service_manifests.name_of(SPEC.name)))
    with serving.serving(world.laptop.settings, tag) as server:
        for storm.phase, index in enumerate(CHANGED, start=1):
            print(f"batch {key(index)}", flush=True)
            world.ask(callers, server, index)
            world.close(index)
    storm.phase += 1
    world.learn_again()
    hanging: list[Any] = []

    def is_over() -> bool:
        hanging[:] = world.under_way()
        return not hanging

    try:
        world.wait(is_over, "no run is under way")
    except TimeoutError:
        print(f"under way at the end: {hanging}", flush=True)
    with suppress(TimeoutError):
        world.wait(lambda: not world.unready(), "all that was killed is back", BACK_S)
    return callers, hanging


def _differ(kind: str, mine: Any, calm: Any) -> int:
    """Return how many records differ, and print each pair."""
    different = [name for name in {*mine, *calm} if mine.get(name) != calm.get(name)]
    for name in different[:20]:
        print(f"  {kind} {name} differs:\n    {mine.get(name)}\n    {calm.get(name)}", flush=True)
    return len(different)


def _lost_otherwise(log: Sequence[Record], identity: str, got_at: datetime) -> str:
    """Return what is known of an answer that was lost and not with a volume."""
    times = ", ".join(f"{(record.hit.at - got_at).total_seconds():+.1f} s" for record in log)
    cut_off = [number for number, record in enumerate(log, start=1) if identity in record.hit.cut_off]
    where = f"on a volume that kill {cut_off[0]} cut off" if cut_off else "on no volume that was cut off"
    return f"Lost otherwise: {identity}, {where}; the kills came so long after it was got: {times}."
