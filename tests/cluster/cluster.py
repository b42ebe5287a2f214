"""A cluster to test against: one that is started here, or another that a kubeconfig names."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kubernetes import client, config

from tests.cluster import cleanup, images, keeper, registry
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node, conditions_of
from tests.cluster.registry import Registry
from tests.cluster.spaces import HOST, prepare_host
from tests.cluster.waiting import wait_until

READY_S = 240.0
PLAIN_HOSTS = ("localhost", "127.0.0.1", HOST)
"""Registries on these are reached by HTTP."""


@dataclass
class Cluster:
    """A cluster that answers.

    Attributes:
        kubeconfig: of an account that may do everything that tests do.
        registry: where the tests push images and the nodes pull them.
        control, nodes: of a cluster that was started here; None and empty for another one.
        started_s: seconds until all nodes were Ready.
    """

    kubeconfig: Path
    registry: Registry
    control: ControlPlane | None = None
    nodes: list[Node] = field(default_factory=list)
    started_s: float = 0.0

    def network(self) -> AbstractContextManager[None]:
        """Move this thread to where the cluster can be reached, as long as the context lasts."""
        return self.control.space.network() if self.control else nullcontext()

    @cached_property
    def api(self) -> client.ApiClient:
        """A client with the rights of the kubeconfig's account."""
        configuration = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=configuration)
        if self.control:
            configuration.proxy = None  # out of reach from the cluster's network
        return client.ApiClient(configuration)

    @cached_property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    def kubectl(self, *argv: str) -> str:
        """Run kubectl: the control plane's, or for another cluster the one in the search path."""
        if self.control:
            return self.control.kubectl(*argv)
        program = shutil.which("kubectl")
        assert program is not None, "kubectl is not in the search path"
        command = [program, f"--kubeconfig={self.kubeconfig}", *argv]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

    def is_ready(self, node: str) -> bool:
        try:
            return conditions_of(self.core.read_node(node)).get("Ready") == "True"
        except client.ApiException as problem:
            if problem.status != 404:
                raise
            return False

    def wait_for_node(self, node: str, *, is_ready: bool = True) -> None:
        state = "Ready" if is_ready else "not Ready"
        wait_until(
            lambda: self.is_ready(node) == is_ready,
            READY_S,
            f"{node} is {state}",
            lambda: self.kubectl("describe", "node", node),
        )


@contextmanager
def started(assets: Path, nodes: int = 2) -> Iterator[Cluster]:
    """Start a cluster, and remove everything of it at the end, or when this process dies."""
    begin = time.monotonic()
    cleanup.sweep()
    name = cleanup.new_name()
    with keeper.opened(name) as space:
        cluster = _start(ControlPlane(space, cleanup.folder_of(name), assets), name, nodes)
        cluster.started_s = time.monotonic() - begin
        yield cluster


def _start(control: ControlPlane, name: str, count: int) -> Cluster:
    prepare_host(control.space)
    pushed, _ = registry.start(control.space, control.folder)
    control.start()
    cluster = Cluster(control.kubeconfig, pushed, control)
    with cluster.network():
        pushed.push("pause", images.write_pause, control.folder)
        for number in range(1, count + 1):
            node = Node(control, pushed, name, number)
            node.create()
            node.power_on()
            cluster.nodes.append(node)
        for node in cluster.nodes:
            cluster.wait_for_node(node.name)
    return cluster


def other(kubeconfig: Path, address: str) -> Cluster:
    """Return the cluster of a kubeconfig, with a registry that both this machine and its nodes reach by `address`."""
    host = address.partition("/")[0].partition(":")[0]
    return Cluster(kubeconfig, Registry(address, is_plain=host in PLAIN_HOSTS))
