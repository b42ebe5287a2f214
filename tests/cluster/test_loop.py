"""The loop closes between pods that share nothing but the store, and decides as it does on a laptop.

Run for real: webserver, daemon and code server as pods of the platform image, runs as Jobs, steps as pods, three
replicas of the service on two nodes behind a Service, PostgreSQL and the S3 server outside of it. Batches of parts
land; from the ninth on they are wider and break by another rule. The same files and questions go to a laptop.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.kubernetes import service_manifests
from platform_assets.serving import releasing
from platform_assets.serving.run import child as serving
from platform_assets.store.objects import open_store
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import Service
from platform_assets.store.tables import TableStore
from tests.cluster import created_pods, graphql, loop, names, platform_images, proxy
from tests.cluster.callers import Callers
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.laptop import Laptop
from tests.cluster.loop import CHANGED, LOGS, OWN, REPLICAS, SMALL, TRAINING_S, Question, ask
from tests.cluster.platform import NAMESPACE, Images, Platform
from tests.cluster.trainer import TrainerImage
from tests.cluster.waiting import wait_until
from tests.doubles import cluster_environment, documents
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import live_parts
from tests.doubles.products.live_parts import LEARNED, SPEC
from tests.doubles.received import Arrived
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

KEY_S, FOLLOWED_S = 240.0, 60.0


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
        with loop.at_work(cluster, images, s3, postgres, folder) as platform:
            yield platform


@pytest.fixture
def platform(at_work: Platform, reachable: Cluster, stored: None, namespaced: None) -> Platform:
    """The platform, with this test where it can be reached, and in an environment that leads to its store."""
    return at_work


@pytest.fixture
def namespaced(request: pytest.FixtureRequest) -> None:
    """Note this test as the one of the platform's namespace, for the table of rights."""
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid


@pytest.fixture
def laptop(repository: Path, tmp_path: Path) -> Laptop:
    checkout = cluster_environment.checkout(repository, tmp_path / "checkout", live_parts)
    return Laptop(checkout, tmp_path / "laptop", SPEC.name, SMALL)


def asked(address: str, question: Question) -> dict[str, Any]:
    """Ask until there is an answer, a few times: callers retry with the same key."""
    for _ in range(5):
        status, answer = ask(address, question)
        if status == 200:
            return dict(answer)
        time.sleep(0.5)
    raise AssertionError((status, answer))


def waiting(platform: Platform, condition: Callable[[], object], patience_s: float, text: str) -> None:
    wait_until(lambda: bool(condition()), patience_s, text, platform.described)


def follow(platform: Platform, number: int) -> None:
    waiting(
        platform,
        lambda: loop.served(platform) == [number] * REPLICAS,
        FOLLOWED_S,
        f"all replicas serve release {number}",
    )


def test_the_loop_closes_between_pods_and_decides_as_on_a_laptop(platform: Platform, laptop: Laptop) -> None:
    key = SPEC.grain.key_at
    both = (platform.settings, laptop.settings)
    for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
        loop.land(both, live_parts.files(index, at))
    laptop.job("advance", key(0), key(LEARNED - 1))
    laptop.job("retrain", key(LEARNED))
    waiting(platform, lambda: loop.newest_release(platform.settings)[0] == 1, TRAINING_S, "release 1")
    product = ProductStore(SPEC, platform.settings)
    platform.apply(service_manifests.manifests(product, REPLICAS), "service")
    name = service_manifests.name_of(SPEC.name)
    platform.wait_for(name)
    follow(platform, 1)
    assert len({pod.spec.node_name for pod in platform.pods(OWN)}) == 2
    tag = Service.of(TableStore(laptop.settings.root, SPEC.name).records("service")[key(LEARNED)]).tag
    address = platform.address(name)
    callers, repeated = Callers(address), list[Question]()
    with serving.serving(laptop.settings, tag) as local, ExitStack() as asking:
        for index in CHANGED:
            questions = [live_parts.question(row, datetime.now(UTC)) for row in live_parts.rows(index, is_changed=True)]
            for question in questions:
                answer, (_, on_laptop) = asked(address, question), local.predict(question)
                assert answer["prediction_id"] == on_laptop["prediction_id"]
            repeated += questions[:5]
            if index == CHANGED[0]:
                asking.enter_context(callers.asking(repeated[number % len(repeated)] for number in count()))
            time.sleep(1.1)  # deliveries state whole seconds, and these parts are known after they were asked about
            loop.land(both, live_parts.files(index, datetime.now(UTC), is_changed=True))
            laptop.job("advance", key(index), key(index))
            current = key(index)
            waiting(
                platform,
                lambda current=current: loop.decision(platform.settings, current),
                KEY_S,
                f"there is a decision for {current}",
            )
        laptop.job("retrain", key(CHANGED[-1] + 1))
        waiting(platform, lambda: loop.newest_release(platform.settings)[0] == 2, TRAINING_S, "release 2")
        follow(platform, 2)
        for settings in both:
            releasing.roll_back(ProductStore(SPEC, settings), "to try it")
        follow(platform, 3)
    counts = _compare(both)
    print(f"equal on the cluster and on a laptop: {counts}; callers got {dict(callers.statuses)}")
    assert callers.statuses[200] > 0.99 * callers.statuses.total()
    assert loop.shared(platform) == []
    runs = {
        name: used for name, used in created_pods.images(platform.cluster, NAMESPACE).items() if "dagster-run" in name
    }
    logged = {"__repository__", *(name.removeprefix("dagster-run-").rpartition("-")[0] for name in runs)}
    waiting(platform, lambda: logged <= _logged(), FOLLOWED_S, "logs of sensors and of each run are on S3")
    (code,) = platform.pods("app.kubernetes.io/component=code")
    assert runs and all(used == {code.spec.containers[0].image} for used in runs.values())


def _compare(both: tuple[Settings, Settings]) -> dict[str, int]:
    """Compare decisions, verdicts, releases and ids of answers, and count them."""
    mine, theirs = (loop.content(settings) for settings in both)
    for kind, content in theirs.items():
        assert mine[kind] == content, kind
    return {kind: len(content) for kind, content in mine.items()}


def _logged() -> set[str]:
    """Return of which runs there are logs on S3; `__repository__` are those of sensors."""
    paths = [str(item["path"]) for batch in obstore.list(open_store(f"s3://{LOGS}")) for item in batch]
    return {path.partition("/storage/")[2].partition("/")[0] for path in paths if path.startswith("compute_logs/")}


TERMINATE = """
mutation ($run: String!) { terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }
"""
RETRAIN = naming.job("retrain", SPEC.name)
ENDED_S = 180.0


def test_runs_end_by_a_person_by_their_time_limit_and_by_a_kill(platform: Platform) -> None:
    webserver, key = platform.address(proxy.NAME), SPEC.grain.key_at
    if loop.newest_release(platform.settings)[0] == 0:
        for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
            loop.land((platform.settings,), live_parts.files(index, at))
        waiting(platform, lambda: loop.newest_release(platform.settings)[0] == 1, TRAINING_S, "release 1")
    terminated = _training(platform, webserver, key(LEARNED + 1))
    ended = graphql.ask(webserver, TERMINATE, run=terminated)["terminateRun"]
    assert ended["__typename"] == "TerminateRunSuccess", (ended, platform.described())
    waiting(platform, lambda: graphql.status(webserver, terminated) == "CANCELED", ENDED_S, "the run is cancelled")
    waiting(platform, lambda: not platform.pods(f"dagster/run-id={terminated}"), ENDED_S, "its pod is gone")
    late = _training(platform, webserver, key(LEARNED + 2), ("dagster/max_runtime", "1"))
    text = "the run was ended for its time limit"
    waiting(platform, lambda: graphql.status(webserver, late) == "FAILURE", ENDED_S, text)
    killed = _training(platform, webserver, key(LEARNED + 3))
    platform.kubectl("delete", "pod", f"--selector=dagster/run-id={killed}", "--grace-period=0", "--force")
    waiting(platform, lambda: graphql.status(webserver, killed) == "FAILURE", ENDED_S, "the run has failed")


def test_the_migration_may_run_again(platform: Platform) -> None:
    for number in (1, 2):
        job = f"migration-{number}"
        platform.kubectl("create", "job", job, "--from=cronjob/driftline-migration")
        platform.kubectl("wait", "--for=condition=Complete", f"--timeout={ENDED_S:g}s", f"job/{job}")
        assert "Storage schema state after migration" in platform.kubectl("logs", f"job/{job}")


def test_the_read_only_webserver_shows_runs_and_starts_none(platform: Platform) -> None:
    name = platform.start_read_only()
    (port,) = (port for port, webserver in proxy.WEBSERVERS.items() if webserver == name)
    address = f"http://{urlsplit(platform.address(proxy.NAME)).hostname}:{port}"
    shown = graphql.ask(address, "{ runsOrError(limit: 1) { __typename } }")
    assert shown["runsOrError"]["__typename"] == "Runs"
    tags = [{"key": "dagster/partition", "value": SPEC.grain.key_at(LEARNED)}]
    params = {"selector": graphql.selector(RETRAIN), "executionMetadata": {"tags": tags}}
    assert graphql.ask(address, graphql.LAUNCH, params=params)["launchRun"]["__typename"] == "UnauthorizedError"
    platform.kubectl("scale", "deployment", name, "--replicas=0")


def _training(platform: Platform, webserver: str, cutoff: str, *more: tuple[str, str]) -> str:
    """Start a run of a training by the UI's own request, and return its id once it is at work."""
    run = graphql.launch(webserver, RETRAIN, {"dagster/partition": cutoff, **dict(more)}, ENDED_S)
    # Dagster ends a run that has started, or that is still queued, but not one between these states.
    waiting(platform, lambda: graphql.status(webserver, run) == "STARTED", ENDED_S, f"run {run} has started")
    return run


def test_another_contract_is_a_rolling_update_and_until_then_the_last_good_model_answers(
    platform: Platform, repository: Path, tmp_path: Path
) -> None:
    address, (before, released) = _serving(platform, REPLICAS), loop.newest_release(platform.settings)
    operator = Laptop(
        _with_another_contract(repository, tmp_path), tmp_path / "operator", SPEC.name, SMALL | _store(platform)
    )
    operator.job("retrain", released["cutoff"])
    number, record = loop.newest_release(platform.settings)
    assert (number, record["cutoff"]) == (before + 1, released["cutoff"])
    assert record["contract_sha256"] != released["contract_sha256"]
    arrived, callers = Arrived(platform.settings.root, SPEC.name), Callers(address)

    def next_digests() -> set[str]:
        """Return the models of the next answers."""
        seen = len(callers.digests)
        waiting(platform, lambda: len(callers.digests) >= seen + 20, FOLLOWED_S, "callers get answers")
        return set(callers.digests[seen:])

    rows = [row for index in range(100, 105) for row in live_parts.rows(index)]
    with callers.asking([live_parts.question(row, datetime.now(UTC)) for row in rows]):
        waiting(platform, lambda: _states(platform, "latest_release") == [number] * REPLICAS, FOLLOWED_S, "all know it")
        for state in _states(platform):
            assert (state["release"], state["is_ready"]) == (before, True)
            assert f"release {number} has contract {record['contract_sha256']}" in state["problem"]
            assert "roll out the Bento that was built for the release" in state["problem"]
        assert next_digests() == {documents.live_digest(released)}
        platform.apply(service_manifests.manifests(ProductStore(SPEC, platform.settings), REPLICAS), "service")
        platform.wait_for(service_manifests.name_of(SPEC.name))
        follow(platform, number)
        waiting(platform, lambda: len(platform.pods(OWN)) == REPLICAS, FOLLOWED_S, "the old replicas are gone")
        assert next_digests() == {documents.live_digest(record)}
    waiting(platform, lambda: set(callers.acknowledged) <= arrived.look(), FOLLOWED_S, "every answer is in the store")
    print(f"rolled while {len(callers.acknowledged)} answers were given; statuses {dict(callers.statuses)}")
    assert callers.failed_twice == 0


def _serving(platform: Platform, replicas: int) -> str:
    """Have replicas serve the newest release, the first one if there is none; return the Service's address."""
    if loop.newest_release(platform.settings)[0] == 0:
        for index, at in enumerate(live_parts.first_moments(datetime.now(UTC))):
            loop.land((platform.settings,), live_parts.files(index, at))
        waiting(platform, lambda: loop.newest_release(platform.settings)[0] == 1, TRAINING_S, "release 1")
    platform.apply(service_manifests.manifests(ProductStore(SPEC, platform.settings), replicas), "service")
    platform.wait_for(service_manifests.name_of(SPEC.name))
    follow(platform, loop.newest_release(platform.settings)[0])
    return platform.address(service_manifests.name_of(SPEC.name))


def _with_another_contract(repository: Path, place: Path) -> Path:
    """Return a checkout whose product describes a field in other words, so that requests stay as they are."""
    checkout = cluster_environment.checkout(repository, place / "checkout", live_parts)
    file = checkout / f"platform_assets/products/{SPEC.name}.py"
    text = file.read_text(encoding="utf-8")
    assert text.count('"Measured."') == 2
    file.write_text(text.replace('"Measured."', '"Measured, in millimetres."', 1), encoding="utf-8")
    return checkout


def _store(platform: Platform) -> dict[str, str]:
    """Return the variables with which a process next to the cluster uses its store."""
    return {"DRIFTLINE_ROOT": platform.settings.root, **{n: v for n, v in os.environ.items() if n.startswith("AWS_")}}


def _states(platform: Platform, name: str | None = None) -> list[Any]:
    """Return what each replica says of itself, or one member of it."""
    states = [loop.get(f"http://{pod.status.pod_ip}:3001/readyz") for pod in loop.replicas(platform)]
    return states if name is None else [state[name] for state in states]
