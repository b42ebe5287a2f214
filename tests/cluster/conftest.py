"""One cluster per session, one namespace of it per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from tests.cluster import images
from tests.cluster.cluster import Cluster, other, started
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.node import Node
from tests.cluster.pods import Pods
from tests.cluster.requirements import ASSETS, KUBECONFIG, REGISTRY, missing
from tests.cluster.usage import report

USAGE = pytest.StashKey[str]()


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
        request.config.stash[USAGE] = report(own)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the cluster cost."""
    if USAGE in config.stash:
        terminalreporter.section("cluster")
        terminalreporter.write_line(config.stash[USAGE])


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
def core(reachable: Cluster) -> client.CoreV1Api:
    """Kubernetes' core API, as an administrator."""
    return reachable.core


@pytest.fixture
def namespace(core: client.CoreV1Api) -> Iterator[str]:
    """A namespace for this test alone, with Pod Security "restricted"."""
    with fresh_namespace(core) as name:
        yield name


@pytest.fixture
def pods(core: client.CoreV1Api, namespace: str) -> Pods:
    """The pods of this test's namespace."""
    return Pods(core, namespace)


@pytest.fixture(scope="session")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a shell, by its digest in the cluster's registry."""
    with cluster.network():
        return cluster.registry.push("shell", images.write_shell, tmp_path_factory.mktemp("images"))
