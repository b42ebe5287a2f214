"""What containerd itself says of the containers of a node: which pod each belongs to, when it started and ended.

It is read from the node's containerd, which no code under test talks to, while it happens: the kubelet removes dead
containers, and with them what containerd knows.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.cluster.node import Node
from tests.cluster.spaces import Service

LOOK_S = 0.2
_EVENT = re.compile(r"(\S+ \S+) \+0000 UTC \S+ (/\S+) (\{.*\})")
_NANOSECONDS = re.compile(r"(\.\d{6})\d+")


@dataclass
class Container:
    """A container of a pod.

    Attributes:
        labels: of its pod.
        ended_at: by containerd, or when its node lost power.
        code: None if nobody saw it end.
    """

    labels: dict[str, str]
    started_at: datetime
    ended_at: datetime | None = None
    code: int | None = None


class Recorder:
    """Records the containers of one node; a node that was switched on again wants a new one."""

    def __init__(self, node: Node, label: str) -> None:
        """Record the containers of pods with a label."""
        self.node, self.label = node, label
        self.containers: dict[str, Container] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._pods: dict[str, dict[str, str]] = {}
        self._is_over = threading.Event()
        self._log = node.disk / f"events-{time.monotonic_ns()}.log"
        self._service: Service = node.running.start("ctr", "ctr", "--namespace=k8s.io", "events", log=self._log)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> list[Container]:
        """Stop, and return the containers of pods with the label; those that run have ended now, with the node."""
        self._is_over.set()
        self._thread.join()
        if self._service.is_running():
            self._service.kill()
        now = datetime.now(UTC)
        for container in self.containers.values():
            container.ended_at = container.ended_at or now
        return list(self.containers.values())

    def _follow(self) -> None:
        with self._log.open(encoding="utf-8") as file:
            while True:
                was_over = self._is_over.is_set()
                for line in _whole_lines(file):
                    self._note(line)
                if was_over:
                    return
                self._is_over.wait(LOOK_S)

    def _note(self, line: str) -> None:
        event = _EVENT.match(line)
        if event is None:
            return
        moment, topic, content = event.groups()
        subject = json.loads(content)
        if topic == "/containers/create":
            self._identify(subject["id"])
        elif topic == "/tasks/start" and (labels := self._labels.get(subject["container_id"])):
            self.containers[subject["container_id"]] = Container(labels, _moment(moment))
        elif topic == "/tasks/exit" and subject.get("id") == subject["container_id"]:
            container = self.containers.get(subject["container_id"])
            if container is not None:
                container.ended_at, container.code = _exited(subject, moment), subject.get("exit_status", 0)

    def _identify(self, container: str) -> None:
        """Note of whose pod a container is; a pod's labels are those of its sandbox."""
        text = self.node.running.run("ctr", "--namespace=k8s.io", "containers", "info", container)
        labels = json.loads(text)["Labels"]
        pod = labels["io.kubernetes.pod.uid"]
        if labels["io.cri-containerd.kind"] == "sandbox":
            self._pods[pod] = labels
        elif self.label in self._pods.get(pod, {}):
            self._labels[container] = self._pods[pod]


def _whole_lines(file: Any) -> Iterator[str]:
    """Yield lines that are there in full."""
    while True:
        place = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(place)
            return
        yield line


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(_NANOSECONDS.sub(r"\1", text)).replace(tzinfo=UTC)


def _exited(subject: dict[str, Any], moment: str) -> datetime:
    at = subject.get("exited_at")
    if isinstance(at, dict):
        return datetime.fromtimestamp(at["seconds"] + at.get("nanos", 0) / 1e9, UTC)
    return datetime.fromisoformat(_NANOSECONDS.sub(r"\1", at)) if at else _moment(moment)
