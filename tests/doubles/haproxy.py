"""Run the shipped haproxy configuration in front of replicas."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.run.child import HOST, free_port

FILE = REPOSITORY / "deploy/haproxy/haproxy.cfg"
START_S = 30.0


def program() -> str:
    """Return haproxy's path; skip the test where it is not installed."""
    path = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        pytest.skip("needs haproxy: apt-get install haproxy")
    return path


def variables(replicas: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Return the variables that name replicas on this machine, each by its port and the port of its probes."""
    names = {}
    for number, (port, probes) in enumerate(replicas, 1):
        names |= {f"DRIFTLINE_REPLICA_{number}": f"{HOST}:{port}", f"DRIFTLINE_PROBES_PORT_{number}": str(probes)}
    return names


@contextlib.contextmanager
def running(
    replicas: Sequence[tuple[int, int]], log: Path, more: Mapping[str, str] | None = None
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run haproxy and return its port and process.

    Args:
        replicas: the port of each, and the port of its probes.
        log: file of its output.
        more: variables of the configuration.
    """
    port = free_port()
    environment = {**os.environ, **variables(replicas), "DRIFTLINE_LISTEN": f"{HOST}:{port}", **(more or {})}
    with (
        log.open("wb") as output,
        subprocess.Popen([program(), "-db", "-f", str(FILE)], env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            _wait(port, process, log)
            yield port, process
        finally:
            process.kill()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port)):
            return
        time.sleep(0.05)
    raise RuntimeError(f"haproxy did not start: {log.read_text()}")
