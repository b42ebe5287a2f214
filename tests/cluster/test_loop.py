"""The loop closes between pods that share nothing but the store, and decides as it does on a laptop.

Run for real: webserver, daemon and code server as pods of the platform image, runs as Jobs, steps as pods, three
replicas of the service on two nodes behind a Service, PostgreSQL and the S3 server outside of it. Batches of parts
land; from the ninth on they are wider and break by another rule. The same files and questions go to a laptop.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from platform_assets import manifests, naming, releasing
from platform_assets.handle import Product
from platform_assets.records.notes import Service
from platform_assets.serving import run as serving
from platform_assets.settings import Settings
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.cluster import names, platform_images
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.laptop import Laptop
from tests.cluster.platform import NAMESPACE, Images, Platform, deployed, volumes
from tests.cluster.trainer import TrainerImage
from tests.cluster.waiting import wait_until
from tests.doubles import cluster_environment, documents
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import live_parts
from tests.doubles.products.live_parts import LEARNED, SPEC
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

LOGS, BUCKET = "driftline-logs", "driftline"
REPLICAS = 3
KEY_S, TRAINING_S, FOLLOWED_S = 240.0, 420.0, 60.0
SMALL = {f"DRIFTLINE_PROFILE__{name}__CORES": "1" for name in ("CPU_SMALL", "CPU_SPOT")}
"""A training leaves room for everything else on nodes of two cores."""
CHANGED = range(LEARNED, LEARNED + 4)
KEPT_NOTHING = {"emptyDir", "configMap", "secret", "projected", "downwardAPI"}
"""Kinds of volumes that hold nothing which another pod can see."""
Question = Mapping[str, Any]


@pytest.fixture(scope="session")
def images(cluster: Cluster, built: TrainerImage, repository: Path) -> Images:
    """The three images in the cluster's registry; in platform and trainer `live_parts` is the only product."""
    return platform_images.pushed(cluster, repository, built, live_parts)


@pytest.fixture(scope="module")
def at_work(
    cluster: Cluster, images: Images, s3: S3Server, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """The platform at work, with an empty store."""
    folder = tmp_path_factory.mktemp("platform")
    with cluster.network():
        names.serve_names(cluster, folder)
        s3.make_bucket(LOGS)
        with _deployed(cluster, images, s3, postgres, folder) as platform:
            yield platform
        s3.remove_bucket(LOGS)


@pytest.fixture
def platform(at_work: Platform, reachable: Cluster, stored: None, namespaced: None) -> Platform:
    """The platform, with this test where it can be reached, and in an environment that leads to its store."""
    return at_work


@pytest.fixture
def namespaced(request: pytest.FixtureRequest) -> None:
    """Note this test as the one of the platform's namespace, for the table of rights."""
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid


@contextmanager
def _deployed(
    cluster: Cluster, images: Images, s3: S3Server, postgres: PostgresServer, folder: Path
) -> Iterator[Platform]:
    secrets: dict[str, dict[str, str]] = {"driftline-postgres": {}, "driftline-store": {}}
    variables = {"DRIFTLINE_ROOT": f"s3://{BUCKET}/{folder.name}", "DRIFTLINE_LOGS_BUCKET": LOGS}
    for name, text in {**postgres.environment(), **s3.environment()}.items():
        if name in ("DAGSTER_PG_USER", "DAGSTER_PG_PASSWORD"):
            secrets["driftline-postgres"][name] = text
        elif "KEY" in name:
            secrets["driftline-store"][name] = text
        else:
            variables[name] = text
    overlay = folder / "overlay"
    overlay.mkdir()
    with deployed(cluster, images, variables | SMALL, secrets, overlay) as platform:
        yield platform


@pytest.fixture
def laptop(repository: Path, tmp_path: Path) -> Laptop:
    checkout = cluster_environment.checkout(repository, tmp_path / "checkout", live_parts)
    return Laptop(checkout, tmp_path / "laptop", SPEC.name, SMALL)


@dataclass
class Callers:
    """Callers who ask each question anew all the while, by its key, so that it counts once.

    Attributes:
        address: of the Service.
        statuses: how often each status came; 0 is a broken connection.
    """

    address: str
    questions: list[Question] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._call, daemon=True)  # in the network namespace of its parent
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        assert self._thread is not None
        self._thread.join()

    def _call(self) -> None:
        number = 0
        while not self._is_over.is_set():
            if self.questions:
                status, _ = ask(self.address, self.questions[number % len(self.questions)])
                self.statuses[status] += 1
                number += 1
            self._is_over.wait(0.2)


def ask(address: str, question: Question) -> tuple[int, Any]:
    """Ask on a new connection, so that each replica gets its share; return status and answer."""
    place = urlsplit(address)
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)) as connection:
        try:
            connection.request("POST", "/predict", json.dumps(question))
            with connection.getresponse() as response:
                return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException) as problem:
            return 0, problem


def asked(address: str, question: Question) -> dict[str, Any]:
    """Ask until there is an answer, a few times: callers retry with the same key."""
    for _ in range(5):
        status, answer = ask(address, question)
        if status == 200:
            return dict(answer)
        time.sleep(0.5)
    raise AssertionError((status, answer))


def decision(settings: Settings, key: str) -> dict[str, Any] | None:
    return Ledgers(settings.root, SPEC.name).read(naming.DECISIONS, key)


def newest_release(settings: Settings) -> tuple[int, dict[str, Any]]:
    return Ledgers(settings.root, SPEC.name).latest(naming.RELEASES) or (0, {})


def waiting(platform: Platform, condition: Callable[[], object], patience_s: float, text: str) -> None:
    wait_until(lambda: bool(condition()), patience_s, text, platform.described)


def follow(platform: Platform, number: int) -> None:
    """Wait until every replica serves a release."""

    def releases() -> list[Any]:
        pods = platform.pods(f"driftline/product={SPEC.name}")
        states = [get(f"http://{pod.status.pod_ip}:3001/readyz") for pod in pods]
        return [state.get("release") for state in states]

    waiting(platform, lambda: releases() == [number] * REPLICAS, FOLLOWED_S, f"all replicas serve release {number}")


def get(address: str) -> dict[str, Any]:
    place = urlsplit(address)
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=5)) as connection:
        connection.request("GET", place.path)
        return dict(json.loads(connection.getresponse().read()))


@dataclass
class Watcher:
    """Notes the volumes and images of every pod that was ever there."""

    platform: Platform
    volumes: dict[str, set[str]] = field(default_factory=dict)
    images: dict[str, set[str]] = field(default_factory=dict)

    def look(self) -> None:
        for pod in self.platform.cluster.core.list_namespaced_pod(NAMESPACE).items:
            self.volumes[pod.metadata.name] = volumes(pod)
            self.images[pod.metadata.name] = {container.image for container in pod.spec.containers}


def test_the_loop_closes_between_pods_and_decides_as_on_a_laptop(platform: Platform, laptop: Laptop) -> None:
    watcher, key = Watcher(platform), SPEC.grain.key_at
    both = (platform.settings, laptop.settings)
    for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
        _land(both, live_parts.files(index, at))
    laptop.job("advance", key(0), key(LEARNED - 1))
    laptop.job("retrain", key(LEARNED))
    waiting(platform, lambda: (watcher.look(), newest_release(platform.settings)[0] == 1)[1], TRAINING_S, "release 1")
    product = Product(SPEC, platform.settings)
    platform.apply(manifests.manifests(product, REPLICAS), "service")
    name = manifests.name_of(SPEC.name)
    platform.wait_for(name)
    follow(platform, 1)
    assert len({pod.spec.node_name for pod in platform.pods(f"driftline/product={SPEC.name}")}) == 2
    tag = Service.of(TableStore(laptop.settings.root, SPEC.name).records("service")[key(LEARNED)]).tag
    address = platform.address(name)
    with serving.serving(laptop.settings, tag) as local, Callers(address) as callers:
        for index in CHANGED:
            questions = [live_parts.question(row, datetime.now(UTC)) for row in live_parts.rows(index, is_changed=True)]
            for question in questions:
                answer, (_, on_laptop) = asked(address, question), local.predict(question)
                assert answer["prediction_id"] == on_laptop["prediction_id"]
            callers.questions += questions[:5]
            time.sleep(1.1)  # deliveries state whole seconds, and these parts are known after they were asked about
            _land(both, live_parts.files(index, datetime.now(UTC), is_changed=True))
            laptop.job("advance", key(index), key(index))
            current = key(index)
            waiting(
                platform,
                lambda current=current: (watcher.look(), decision(platform.settings, current))[1],
                KEY_S,
                f"there is a decision for {current}",
            )
        laptop.job("retrain", key(CHANGED[-1] + 1))
        waiting(
            platform, lambda: (watcher.look(), newest_release(platform.settings)[0] == 2)[1], TRAINING_S, "release 2"
        )
        follow(platform, 2)
        for settings in both:
            releasing.roll_back(Product(SPEC, settings), "to try it")
        follow(platform, 3)
    counts = _compare(both)
    print(f"equal on the cluster and on a laptop: {counts}; callers got {dict(callers.statuses)}")
    assert callers.statuses[200] > 0.99 * callers.statuses.total()
    _check_pods(platform, watcher)


def _land(places: tuple[Settings, ...], files: dict[str, str]) -> None:
    for settings in places:
        cluster_environment.land(settings.root, files)


def _compare(both: tuple[Settings, Settings]) -> dict[str, int]:
    """Compare decisions, verdicts, releases and ids of answers, and count them."""
    mine, theirs = (_content(settings) for settings in both)
    for kind, content in theirs.items():
        assert mine[kind] == content, kind
    return {kind: len(content) for kind, content in mine.items()}


def _content(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Return what must be equal, by kind and then by key, number or id."""
    ledgers, tables = Ledgers(settings.root, SPEC.name), TableStore(settings.root, SPEC.name)
    keys = [SPEC.grain.key_at(index) for index in range(CHANGED[-1] + 1)]
    decisions = {key: ledgers.read(naming.DECISIONS, key) or {} for key in keys}
    number, _ = newest_release(settings)
    releases = {index: ledgers.at(naming.RELEASES, index) or {} for index in range(1, number + 1)}
    digests = {documents.live_digest(release) for release in releases.values()}
    verdicts = {digest: ledgers.read(naming.VERDICTS, digest) or {} for digest in digests}
    answers = tables.read("predictions", keys, columns=["key", "prediction_id", "digest"])
    return {
        "decisions": {key: _chosen(record, "action", "reasons", "cutoff") for key, record in decisions.items()},
        "verdicts": {digest: _chosen(record, "passed", "reasons") for digest, record in verdicts.items()},
        "releases": {
            index: (documents.live_digest(record), *_chosen(record, "outcome", "cutoff"))
            for index, record in releases.items()
        },
        "answers": {identity: (key, digest) for key, identity, digest in answers.iter_rows()},
    }


def _chosen(record: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in names)


def _check_pods(platform: Platform, watcher: Watcher) -> None:
    """No pod had a volume that another sees, runs had the code server's image, and no file of one is in another."""
    for name, kinds in sorted(watcher.volumes.items()):
        print(f"{name}: {', '.join(sorted(kinds))}")
        assert kinds <= KEPT_NOTHING, name
    runs = {name: images for name, images in watcher.images.items() if name.startswith("dagster-run-")}
    (code,) = platform.pods("app.kubernetes.io/component=code")
    assert runs and all(images == {code.spec.containers[0].image} for images in runs.values())
    places = {pod.metadata.name: ("/state", "/tmp", "/dev/shm") for pod in platform.pods()}
    for name, folders in places.items():
        for folder in folders:
            _in(platform, name, f"open('{folder}/canary-{name}', 'w').close()")
    for name, folders in places.items():
        seen = _in(
            platform, name, f"import os; print([n for f in {folders!r} for n in os.listdir(f) if 'canary' in n])"
        )
        assert seen.strip() == str([f"canary-{name}"] * len(folders)), seen


def _in(platform: Platform, pod: str, code: str) -> str:
    return platform.kubectl("exec", pod, "--", "python", "-c", code)


LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
TERMINATE = """
mutation ($run: String!) { terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }
"""
STATUS = "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
ENDED_S = 180.0


def test_runs_end_by_a_person_by_their_time_limit_and_by_a_kill(platform: Platform) -> None:
    webserver, key = platform.address("driftline-webserver"), SPEC.grain.key_at
    if newest_release(platform.settings)[0] == 0:
        for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
            _land((platform.settings,), live_parts.files(index, at))
        waiting(platform, lambda: newest_release(platform.settings)[0] == 1, TRAINING_S, "release 1")
    terminated = _training(platform, webserver, key(LEARNED + 1))
    ended = _graphql(webserver, TERMINATE, run=terminated)["terminateRun"]
    assert ended["__typename"] == "TerminateRunSuccess", (ended, platform.described())
    waiting(platform, lambda: _status(webserver, terminated) == "CANCELED", ENDED_S, "the run is cancelled")
    waiting(platform, lambda: not platform.pods(f"dagster/run-id={terminated}"), ENDED_S, "its pod is gone")
    late = _training(platform, webserver, key(LEARNED + 2), ("dagster/max_runtime", "1"))
    waiting(platform, lambda: _status(webserver, late) == "FAILURE", ENDED_S, "the run was ended for its time limit")
    killed = _training(platform, webserver, key(LEARNED + 3))
    platform.kubectl("delete", "pod", f"--selector=dagster/run-id={killed}", "--grace-period=0", "--force")
    waiting(platform, lambda: _status(webserver, killed) == "FAILURE", ENDED_S, "the run has failed")


def _training(platform: Platform, webserver: str, cutoff: str, *more: tuple[str, str]) -> str:
    """Start a run of a training by the UI's own request, and return its id once it is at work."""
    selector = {
        "repositoryLocationName": "driftline",
        "repositoryName": "__repository__",
        "jobName": naming.job("retrain", SPEC.name),
    }
    tags = [{"key": name, "value": value} for name, value in (("dagster/partition", cutoff), *more)]
    results: list[dict[str, Any]] = []

    def is_launched() -> bool:
        """Ask; a webserver that has just started may not have loaded the code server's jobs yet."""
        params = {"selector": selector, "executionMetadata": {"tags": tags}}
        results.append(_graphql(webserver, LAUNCH, params=params)["launchRun"])
        return bool(results[-1]["__typename"] == "LaunchRunSuccess")

    wait_until(is_launched, ENDED_S, "the run is launched", lambda: str(results[-1]))
    run = str(results[-1]["run"]["runId"])
    # Dagster ends a run that has started, or that is still queued, and none between the two.
    waiting(platform, lambda: _status(webserver, run) == "STARTED", ENDED_S, f"run {run} has started")
    return run


def _status(webserver: str, run: str) -> str:
    return str(_graphql(webserver, STATUS, run=run)["runOrError"]["status"])


def _graphql(webserver: str, query: str, **variables: Any) -> dict[str, Any]:
    place = urlsplit(webserver)
    body = json.dumps({"query": query, "variables": variables})
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)) as connection:
        connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    assert "errors" not in answer, answer["errors"]
    return dict(answer["data"])
