"""A Kubernetes cluster for tests, on this machine: a double, whose pods are processes."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.doubles.cluster.api import Access, Api
from tests.doubles.cluster.controllers import Controller, Jobs, Node, Scheduler
from tests.doubles.cluster.faults import Faults
from tests.doubles.cluster.kubelet import Kubelet
from tests.doubles.cluster.objects import Object, Store, field_of, selects
from tests.doubles.cluster.processes import Journal
from tests.doubles.cluster.server import Server


class Cluster(Faults):
    """A double of a cluster: `with Cluster([Node(name="a")]) as cluster: ...`.

    Args:
        nodes: in the order in which the scheduler fills them.
        namespaces: that exist; faults are about pods of the first.
        tokens: bearer tokens and whom they stand for.
        journal: where to write it; by default a file that is gone after the cluster.
        of_the_kubelet: `images` (a set; None: every image can be pulled), `secrets` (and config maps, by name),
            `environment` for every container below its own (a `PYTHONPATH`), `cwd`, `start_s` until one starts,
            `runs`: `PodmanContainer` for containers of their image; by default they are processes.
    """

    def __init__(
        self,
        nodes: Sequence[Node] = (Node(name="node-1"),),
        *,
        namespaces: Sequence[str] = ("default",),
        tokens: Mapping[str, Access] | None = None,
        journal: Path | None = None,
        port: int = 0,
        **of_the_kubelet: Any,
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="cluster-double-"))
        self.namespace = namespaces[0]
        self.store = Store()
        self.journal = Journal(journal or folder / "journal.jsonl")
        self.tokens = dict(tokens or {"the-token-of-the-double": Access()})
        self.kubelet = Kubelet(store=self.store, journal=self.journal, folder=folder, **of_the_kubelet)
        self.api = Api(self.kubelet, self.tokens)
        self._timers: list[threading.Timer] = []
        self._controllers = [Controller(self.store, item.act) for item in (Scheduler(self.api), Jobs(self.api))]
        self._server = Server(self.api, port)
        self._listener = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        for name in namespaces:
            self.store.add("namespaces", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        for node in nodes:
            self.store.add("nodes", node.shown(self.store.stamp()))

    def __enter__(self) -> Self:
        for thread in (*self._controllers, self._listener):
            thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        """End every process, stop listening, remove the double's folder."""
        self.silence(0)
        self.api.is_closed = True
        for item in (*self._timers, *self._controllers):
            item.cancel()
            item.join(10)
        self.kubelet.close()
        self._server.shutdown()
        self._server.server_close()
        self._listener.join(10)
        shutil.rmtree(self.kubelet.folder, ignore_errors=True)

    def client_configuration(self, token: str = "") -> Any:
        """Return a `kubernetes.client.Configuration` for this cluster."""
        from kubernetes.client import Configuration

        configuration = Configuration(host=self.address)
        configuration.api_key = {"BearerToken": f"Bearer {token or next(iter(self.tokens))}"}
        return configuration

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        """Write a kubeconfig file (JSON, which is YAML) and return its path."""
        user = {"name": "double", "user": {"token": token or next(iter(self.tokens))}}
        context = {"name": "double", "context": {"cluster": "double", "user": "double", "namespace": self.namespace}}
        content = {"apiVersion": "v1", "kind": "Config", "current-context": "double", "contexts": [context]}
        content |= {"clusters": [{"name": "double", "cluster": {"server": self.address}}], "users": [user]}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def pods(self, labels: str = "", fields: str = "") -> list[Object]:
        """Return the pods that a label selector and a field selector choose, in any namespace."""
        return [pod for pod in self.store.every("pods") if selects(labels, fields)(pod)]

    def wait(self, test: Callable[[], Any], *, timeout_s: float = 20.0) -> Any:
        """Wait until `test` returns something true, and return it; TimeoutError when it does not in time."""
        until = time.monotonic() + timeout_s
        while not (result := test()):
            if time.monotonic() >= until:
                raise TimeoutError(f"not in {timeout_s} s: {test}")
            time.sleep(0.01)
        return result

    def wait_for_phase(self, pod: str, *phases: str, timeout_s: float = 20.0) -> Object:
        """Wait until a pod is there and in one of some phases, and return it."""
        name = (self.namespace, pod)
        self.wait(lambda: field_of(self.store.find("pods", *name), "status.phase") in phases, timeout_s=timeout_s)
        return self.pod(pod)
