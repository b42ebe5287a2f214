"""One cluster per session (per process, where pytest has several), one namespace of it per test."""

import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from tests.cluster import accounts, images, opened, rights, servers, trainer
from tests.cluster.cluster import Cluster, other, started
from tests.cluster.launching import Launching
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.node import Node
from tests.cluster.pods import Pods
from tests.cluster.requirements import ASSETS, KUBECONFIG, REGISTRY, missing
from tests.cluster.rights import Right
from tests.cluster.step_runs import StepRuns
from tests.cluster.trainer import TrainerImage
from tests.cluster.usage import report
from tests.doubles.postgres_server import MISSING, PostgresServer, binaries
from tests.doubles.s3_server import S3Server

RECORD_RIGHTS = "RECORD_RIGHTS"
ZONE, SPOT = "topology.kubernetes.io/zone", "driftline/spot"
USAGE = pytest.StashKey[list[str]]()
TESTS = pytest.StashKey[dict[str, str]]()
RIGHTS = pytest.StashKey[dict[Right, str]]()
"""What each cluster cost; the test of each namespace; a test for each right that was used."""


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster that the environment names, or one of our own with two nodes."""
    if kubeconfig := os.environ.get(KUBECONFIG):
        if not os.environ.get(REGISTRY):
            pytest.skip(f"{KUBECONFIG} is set, and {REGISTRY} is not: the tests push images of their own")
        yield other(Path(kubeconfig), os.environ[REGISTRY])
        return
    if sentence := missing(os.environ):
        pytest.skip(sentence)
    with started(Path(os.environ[ASSETS])) as own:
        yield own
        request.config.stash[USAGE] = [report(own)]
        request.config.stash[RIGHTS] = _situations(own, request.config.stash.get(TESTS, {}))


def _situations(own: Cluster, tests: dict[str, str]) -> dict[Right, str]:
    """Return, for each right that was used, the first test by name that used it."""
    assert own.control is not None
    log = own.control.folder / "audit.log"
    situations = sorted((right, tests.get(namespace, "")) for right, namespace in rights.used(log))
    return {right: f"`{test}`" for right, test in reversed(situations) if test}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what the cluster of one of several processes showed to the process that prints it."""
    stash, output = session.config.stash, getattr(session.config, "workeroutput", None)
    if output is not None and USAGE in stash:
        rows = [(*astuple(right), test) for right, test in stash[RIGHTS].items()]
        output["cluster"] = {"usage": stash[USAGE], "rights": rows}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what the cluster of a process showed. The first test by name stands for a right."""
    shown, stash = getattr(node, "workeroutput", {}).get("cluster"), node.config.stash
    if shown is None:
        return
    stash.setdefault(USAGE, []).extend(shown["usage"])
    rights_used = stash.setdefault(RIGHTS, {})
    for *right, test in shown["rights"]:
        rights_used[Right(*right)] = min(test, rights_used.get(Right(*right), test))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the clusters cost."""
    if USAGE in config.stash:
        terminalreporter.section("cluster")
        for usage in config.stash[USAGE]:
            terminalreporter.write_line(usage)
        unused = sorted(rights.granted() - config.stash[RIGHTS].keys())
        terminalreporter.write_line(f"rights granted and not used: {unused or 'none'}")
        if os.environ.get(RECORD_RIGHTS):
            rights.DOCUMENT.write_text(rights.document(config.stash[RIGHTS]), encoding="utf-8")


@pytest.fixture
def reachable(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with the test in a network from which it can be reached."""
    with cluster.network():
        yield cluster


@pytest.fixture
def machines(reachable: Cluster) -> list[Node]:
    """The nodes as machines, whose power and cables a test may cut."""
    if not reachable.nodes:
        pytest.skip(f"the nodes of the cluster in {KUBECONFIG} are not ours to switch off")
    return reachable.nodes


@pytest.fixture
def labelled(reachable: Cluster) -> Iterator[None]:
    """Nodes in zone-a, all of them for spot steps too."""
    names = [node.metadata.name for node in reachable.core.list_node().items]
    for name in names:
        reachable.core.patch_node(name, {"metadata": {"labels": {ZONE: "zone-a", SPOT: "true"}}})
    yield
    for name in names:
        reachable.core.patch_node(name, {"metadata": {"labels": {ZONE: None, SPOT: None}}})


@pytest.fixture
def core(reachable: Cluster) -> client.CoreV1Api:
    return reachable.core


@pytest.fixture
def namespace(core: client.CoreV1Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for this test alone, with Pod Security "restricted"."""
    with fresh_namespace(core) as name:
        request.config.stash.setdefault(TESTS, {})[name] = request.node.nodeid.partition("[")[0]
        yield name


@pytest.fixture
def pods(core: client.CoreV1Api, namespace: str) -> Pods:
    return Pods(core, namespace)


@pytest.fixture(scope="session")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a shell, by its digest in the cluster's registry."""
    with cluster.network():
        return cluster.registry.push("shell", images.write_shell, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def built(repository: Path) -> TrainerImage:
    """The trainer image in podman's storage."""
    if sentence := trainer.missing(os.environ):
        pytest.skip(sentence)
    return trainer.trainer_image(repository)


@pytest.fixture(scope="session")
def steps(cluster: Cluster, built: TrainerImage) -> TrainerImage:
    """The trainer image with the steps and products of tests, by its digest in the cluster's registry."""
    return opened.pushed_steps(cluster, built)


@pytest.fixture(scope="session")
def s3(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that pods reach."""
    with servers.s3_running(cluster, tmp_path_factory.mktemp("s3"), opened.BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> Iterator[PostgresServer]:
    """A PostgreSQL server that pods reach."""
    if binaries() is None:
        pytest.skip(MISSING)
    with servers.postgres_running(cluster) as server:
        yield server


@pytest.fixture
def stored(s3: S3Server, reachable: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that leads to the S3 server."""
    for name in os.environ.keys() - opened.store_environment(s3).keys():
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def granted(reachable: Cluster, namespace: str) -> Iterator[None]:
    """Accounts and rights of deploy/ in this test's namespace."""
    with accounts.granted(reachable, namespace):
        yield


@pytest.fixture
def runs(
    reachable: Cluster, pods: Pods, granted: None, steps: TrainerImage, stored: None, s3: S3Server, tmp_path: Path
) -> StepRuns:
    """Runs of steps as pods of this test's namespace, with the account of a run and the image `steps`."""
    return opened.step_runs(pods, reachable, steps, s3, tmp_path / "state")


@pytest.fixture
def launches(runs: StepRuns, tmp_path: Path) -> Iterator[Launching]:
    """The same runs as processes."""
    processes = Launching(runs, tmp_path)
    yield processes
    processes.close()
