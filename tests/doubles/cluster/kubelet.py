"""The double's kubelet: one worker a pod on a node, which runs its containers, shows their status, takes orders."""

import contextlib
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.doubles.cluster import statuses
from tests.doubles.cluster.objects import Object, Store, walk
from tests.doubles.cluster.processes import Container, Journal, Log


@dataclass(kw_only=True)
class Order:
    """End a pod: SIGTERM, `grace_s`, SIGKILL (0: no SIGTERM), and `show` it; `has_hit`: there was something to end."""

    cause: str
    grace_s: float = 0.0
    show: Callable[[Object], object] | None = None
    is_silent: bool = False
    decided: threading.Event = field(default_factory=threading.Event)
    has_hit: bool = False


@dataclass(kw_only=True)
class Kubelet:
    """What all nodes share, and their pods' workers; doomed are uids of pods that the API removes when they end."""

    store: Store
    journal: Journal
    folder: Path
    images: set[str] | None = None
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)
    start_s: float = 0.05
    runs: type[Container] = Container
    plans: dict[str, deque[Any]] = field(default_factory=lambda: defaultdict(deque))
    workers: dict[str, "Worker"] = field(default_factory=dict)
    logs: dict[tuple[str, str], Log] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    doomed: set[str] = field(default_factory=set)

    def planned(self, kind: str) -> Any:
        return self.plans[kind].popleft() if self.plans[kind] else None

    def order(self, pod: Object, order: Order, *, waits: bool = True) -> bool:
        """Give an order to a pod's worker; return whether it ended anything."""
        if worker := self.workers.get(pod["metadata"]["uid"]):
            worker.give(order)
            while waits and not order.decided.wait(0.1) and worker.is_alive():
                pass
        return order.has_hit

    def close(self) -> None:
        for worker in list(self.workers.values()):
            worker.give(Order(cause="closed", is_silent=True))
            worker.join(10)


class Worker(threading.Thread):
    """Runs one pod, start to end; its processes are its children and die with it."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        super().__init__(name=f"kubelet {pod['metadata']['name']}", daemon=True)
        self.kubelet, self.store, self.pod = kubelet, kubelet.store, pod
        self.uid, self.node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
        kubelet.workers[self.uid] = self
        self._orders: deque[Order] = deque()
        self._first: Order | None = None
        self._ear, self._voice = socket.socketpair()
        self._deadline = time.monotonic() + pod["spec"].get("activeDeadlineSeconds", float("inf"))

    def give(self, order: Order) -> None:
        self._orders.append(order)
        with contextlib.suppress(OSError):
            self._voice.send(b"!")

    def run(self) -> None:
        try:
            if instead := self.kubelet.planned("instead"):
                instead(self.pod)
            else:
                self._live()
        finally:
            with self.store.changed:
                self.kubelet.workers.pop(self.uid, None)
                if self.uid in self.kubelet.doomed and self.node not in self.kubelet.unreachable:
                    self.store.remove("pods", self.pod)
            self._ear.close()
            self._voice.close()

    def _live(self) -> None:
        self._wait("ContainerCreating", "", self.kubelet.start_s)
        while self._first is None and (missing := self._missing()):
            for reason, message in missing.items():
                self.store.tell(self.pod, "Failed", f"Error: {reason}: {message}", is_warning=True)
                self._wait(reason, message, 0.4)
        for kind, spec in walk(self.pod) if self._first is None else ():
            log = Log(self.kubelet.folder / f"{self.uid}.{spec['name']}.log", self.store)
            self.kubelet.logs[self.uid, spec["name"]] = log
            self._run(container := self.kubelet.runs(self.pod, spec, log, is_init=kind == "initContainers"))
            if container.exit_code or self._first:
                return
        if order := self._first:
            is_image = order.cause == "deleted" and "ErrImagePull" in self._missing()
            self.kubelet.journal.write(self.pod, "image" if is_image else order.cause)
            if order.show is not None:
                self._change(order.show)

    def _missing(self) -> dict[str, str]:
        """Return why containers wait: reasons that are shown one after another, with their messages."""
        for _, spec in walk(self.pod):
            image = spec["image"]
            if self.kubelet.images is not None and image not in self.kubelet.images:
                message = f'failed to resolve reference "{image}": {image}: not found'
                back_off = f'Back-off pulling image "{image}": ErrImagePull: {message}'
                return {"ErrImagePull": f"rpc error: code = NotFound desc = {message}", "ImagePullBackOff": back_off}
            try:
                dict(self._variables(spec))
            except LookupError as problem:
                return {"CreateContainerConfigError": str(problem.args[0])}
        return {}

    def _wait(self, reason: str, message: str, seconds: float) -> None:
        """Show that containers wait, and wait, for orders too."""
        until, stamp = time.monotonic() + seconds, self.store.stamp()
        self._change(lambda now: statuses.show_waiting(now, reason, message, stamp))
        with selectors.DefaultSelector() as ready:
            ready.register(self._ear, selectors.EVENT_READ)
            self._read_orders(None)
            while self._first is None and (left := min(until, self._deadline) - time.monotonic()) > 0:
                ready.select(left)
                self._read_orders(None)

    def _run(self, container: Container) -> None:
        """Start a container and see it to its end, as orders and the deadline say; show it, and what they show."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Nothing of this process but the search path gets into a container.
        base = {"PATH": path, "HOME": str(self.kubelet.folder), "HOSTNAME": self.pod["metadata"]["name"]}
        environment = base | dict(self.kubelet.environment) | dict(self._variables(container.spec))
        descriptors = container.start(environment, self.kubelet.cwd)
        self._change(lambda now: statuses.show_container(now, container, self.store))
        self.store.tell(self.pod, "Started", f"Started container {container.name}")
        self._supervise(container, *descriptors)
        self.kubelet.journal.write(self.pod, self._first.cause if self._first else "natural", container)
        if not (order := self._first) or not order.is_silent:
            show = order.show if order and order.show else lambda now: None
            self._change(lambda now: (statuses.show_container(now, container, self.store), show(now)))

    def _supervise(self, container: Container, output: int, end: int) -> None:
        kill_at = float("inf")
        with selectors.DefaultSelector() as ready:
            for descriptor in (self._ear, output, end):
                ready.register(descriptor, selectors.EVENT_READ)
            while not container.has_ended():
                left = min(kill_at, self._deadline) - time.monotonic()
                events = ready.select(None if left == float("inf") else max(0.0, left))
                if any(key.fd == output for key, _ in events) and not container.drain():
                    ready.unregister(output)
                kill_at = min(kill_at, time.monotonic() + self._read_orders(container))
                if time.monotonic() >= kill_at:
                    container.signal(signal.SIGKILL)
                    kill_at += 1
        os.close(end)
        container.reap()
        container.log.close()

    def _read_orders(self, container: Container | None) -> float:
        """Take note of orders; tell the container of them; return the shortest grace asked for."""
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(64, socket.MSG_DONTWAIT)
        if time.monotonic() >= self._deadline:
            self._deadline = float("inf")
            self._orders.append(Order(cause="deadline", grace_s=self.pod["spec"]["terminationGracePeriodSeconds"]))
            message = "Pod was active on the node longer than the specified deadline"
            self._orders[-1].show = lambda now: statuses.fail(now, "DeadlineExceeded", message)
        shortest = float("inf")
        while self._orders:
            order = self._orders.popleft()
            if container is None or not container.has_ended():
                order.has_hit = self._first is None
                self._first = self._first or order
                shortest = min(shortest, order.grace_s)
                if container is not None and order.grace_s:
                    container.signal(signal.SIGTERM)
                    self.store.tell(self.pod, "Killing", f"Stopping container {container.name}")
            order.decided.set()
        return shortest

    def _change(self, act: Callable[[Object], object]) -> None:
        """Show something of the pod, where the API server can be reached."""
        if self.node not in self.kubelet.unreachable:
            self.store.change("pods", self.pod, act)

    def _variables(self, spec: Object) -> Iterator[tuple[str, str]]:
        for source in spec.get("envFrom") or []:
            yield from self._values(source.get("secretRef") or source["configMapRef"]).items()
        for variable in spec.get("env") or []:
            values = variable.get("valueFrom") or {}
            if reference := values.get("secretKeyRef") or values.get("configMapKeyRef"):
                yield variable["name"], self._values(reference).get(reference["key"], "")
            else:
                yield variable["name"], variable.get("value") or ""

    def _values(self, reference: Object) -> Mapping[str, str]:
        if reference["name"] not in self.kubelet.secrets and not reference.get("optional"):
            raise LookupError(f'secret "{reference["name"]}" not found')
        return self.kubelet.secrets.get(reference["name"], {})
