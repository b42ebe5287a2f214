"""A real Alertmanager, which tells a webhook of ours what it tells people."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from platform_assets.serving.run.child import free_port
from tests.doubles.program import Program
from tests.doubles.webhook_server import WebhookServer

START_S = 60.0


@dataclass
class AlertmanagerServer:
    """An Alertmanager on a port of its own.

    Attributes:
        people: the server that it notifies.
    """

    folder: Path
    people: WebhookServer
    port: int
    program: Program

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it again, with what it stored."""
        self.program.start()
        self.wait_for(self.is_ready)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/-/ready").is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it as an upgrade does; it stores silences and what it told people, and forgets alerts."""
        self.program.process.terminate()
        self.program.process.wait(START_S)

    def wait_for(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_S
        while not is_so():
            assert time.monotonic() < deadline, self.program.log()
            time.sleep(0.05)

    def alerts(self) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = httpx.get(f"{self.address}/api/v2/alerts").raise_for_status().json()
        return result

    def post(self, path: str, document: object) -> None:
        httpx.post(f"{self.address}/api/v2/{path}", json=document).raise_for_status()

    def told(self) -> list[tuple[str, list[Mapping[str, str]]]]:
        """Return what it told people: `firing` or `resolved`, and the labels of the alerts."""
        bodies = [body for body, _ in self.people.received]
        return [(body["status"], [alert["labels"] for alert in body["alerts"]]) for body in bodies]

    def names(self) -> list[tuple[str, str]]:
        return [(status, ",".join(sorted(labels["alertname"] for labels in alerts))) for status, alerts in self.told()]


@contextmanager
def running(folder: Path, group_by: Sequence[str] = ("alertname", "product")) -> Iterator[AlertmanagerServer]:
    """Run an Alertmanager that waits for a second, and repeats nothing; skip the test where there is none."""
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("needs Alertmanager: apt-get install prometheus-alertmanager")
    people = WebhookServer()
    times = {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "4h"}
    content = {
        "route": {"receiver": "people", "group_by": list(group_by), **times},
        "receivers": [{"name": "people", "webhook_configs": [{"url": people.address, "send_resolved": True}]}],
    }
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    port = free_port()
    places = [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--storage.path=data"]
    command = [program, "--config.file=alertmanager.yaml", *places]
    server = AlertmanagerServer(folder, people, port, Program(command, folder, {}))
    try:
        server.wait_for(server.is_ready)
        yield server
    finally:
        server.program.kill()
        people.stop()
