"""`driftline serve`'s process: real sockets, real trials, memory that is given back, and an end on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.settings import Settings
from platform_assets.serving.run import child, listening
from platform_assets.store.artifacts import ArtifactStore
from tests.doubles import models

COUNT, ROUNDS = 6, 5
WAIT_S = 60.0


class Process:
    """The process, with its ports."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder), "DRIFTLINE_SERVING_DRAIN_S": "5"})
        self.port = child.free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "platform_assets.serving.run.host", *arguments, "--port", str(self.port)],
            env=self.settings.child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def server(self) -> child.Server:
        url = "http://127.0.0.1:"
        return child.Server(f"{url}{self.port}", f"{url}{self.port + 1}", self.process, Path(os.devnull))


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    root = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)}).root
    return [f"tiny@{models.write_bundle(ArtifactStore(root), bias=float(bias))}" for bias in range(COUNT)]


@pytest.fixture
def serving(tmp_path: Path, names: list[str]) -> Iterator[Process]:
    """Six models of about 1.2 MB in the room of two."""
    process = Process(tmp_path, *names, "--memory-mb", "2.5")
    with process.process:
        yield process
        process.process.kill()


def ask(server: child.Server, name: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server.url}/{name}/predict",
        json.dumps(models.row()).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer


def test_models_share_a_process_and_its_memory_until_sigterm(serving: Process, names: list[str]) -> None:
    server = serving.server()
    server.wait_ready()
    for _ in range(ROUNDS):
        for bias, name in enumerate(names):
            answer = ask(server, name[: len("tiny@") + 12])
            assert answer["digest"] == name.removeprefix("tiny@")
            assert answer["probability"] == pytest.approx(models.expected(float(bias)), abs=1e-6)
    status, page = server.probe("/metrics")
    values = dict(line.rsplit(" ", 1) for line in page.decode().splitlines() if not line.startswith("#"))
    loads = sum(float(value) for name, value in values.items() if name.startswith("driftline_model_load_seconds_count"))
    assert status == 200
    assert loads >= COUNT * ROUNDS - 2
    assert 0 < float(values["driftline_models_bytes"]) <= 2.5 * 2**20
    log = serving.settings.prediction_log / models.PRODUCT
    assert sum(len(path.read_bytes().splitlines()) for path in log.glob("*.jsonl")) == COUNT * ROUNDS
    serving.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + WAIT_S
    while server.probe("/readyz")[0] == 200:
        assert time.monotonic() < deadline
    assert ask(server, names[0][:17])["digest"] == names[0].removeprefix("tiny@")  # it drains
    serving.process.communicate(timeout=WAIT_S)


def test_a_model_that_needs_more_than_the_limit_ends_the_start(tmp_path: Path, names: list[str]) -> None:
    process = Process(tmp_path, names[0], "--memory-mb", "0.5")
    output, _ = process.process.communicate(timeout=WAIT_S)
    assert process.process.returncode == 1
    assert f"serve: {names[0]} cannot be served: bundle" in output
    assert "takes 1." in output
    assert "raise --memory-mb" in output


def test_a_port_that_is_taken_is_named(tmp_path: Path, names: list[str]) -> None:
    port = child.free_port()
    with_it = [
        sys.executable,
        "-c",
        f"import socket,time; s=socket.create_server(('127.0.0.1',{port}));print(flush=True);time.sleep(60)",
    ]
    with subprocess.Popen(with_it, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        environment = Settings.from_environment({"DRIFTLINE_STATE": str(tmp_path)}).child_environment()
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "platform_assets.serving.run.host",
                names[0],
                "--memory-mb",
                "9",
                "--port",
                str(port),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        holder.kill()
    assert (ended.returncode, ended.stderr) == (
        1,
        f"serve: port {port} of 127.0.0.1 cannot be used: Address already in use.\n",
    )


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_port_that_does_not_exist_is_named(port: int) -> None:
    with pytest.raises(listening.PortProblem, match=rf"port {port} of 127\.0\.0\.1 cannot be used: .*0-65535"):
        listening.bound("127.0.0.1", port)
