"""Start a Bento as a child process, send it requests, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings

HOST = "127.0.0.1"
READY_S, STOP_S, ANSWER_S = 60.0, 15.0, 30.0
_PORTS = (20_000, 32_000)
_DIE_WITH_PARENT = (
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, 15)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Ask Linux for SIGTERM when the parent dies (PR_SET_PDEATHSIG, which exec keeps), then become the server."""


class ServerProblem(Problem):
    """A service did not start or answer; the message shows the end of its log."""


@dataclass(frozen=True)
class Server:
    """A running service.

    Attributes:
        url: without a path.
        probes: the address of its probes and metrics, without a path.
        process: `bentoml serve`, the parent of the one that answers, leader of its own process group.
        log: the file of its output.
    """

    url: str
    probes: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> tuple[int, bytes]:
        """Return (status, body) of a GET at the public port."""
        return _ask(urllib.request.Request(self.url + path))

    def probe(self, path: str) -> tuple[int, bytes]:
        """Return (status, body) of a GET at the port of the probes."""
        return _ask(urllib.request.Request(self.probes + path))

    def predict(self, body: Any) -> tuple[int, Any]:
        """Return (status, decoded answer) of a POST to `/predict`."""
        data = json.dumps(body, allow_nan=False).encode()
        headers = {"Content-Type": "application/json"}
        status, answer = _ask(urllib.request.Request(f"{self.url}/predict", data, headers, method="POST"))
        return status, json.loads(answer)

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return as soon as `/readyz` says ready; raise `ServerProblem` if the process ends or the time is up."""
        deadline, last_answer = time.monotonic() + timeout_s, "no answer"
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                status, body = self.probe("/readyz")
            except OSError as problem:
                last_answer = str(problem)
            else:
                if status == 200:
                    return
                last_answer = body.decode(errors="replace")
            time.sleep(0.1)
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise ServerProblem(f"{self.url} is not ready ({last_answer}); the end of {self.log}:\n" + "\n".join(lines))

    def stop(self) -> None:
        """Stop the server, and wait for its end."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        # Bento's supervisor may have ended before its worker did.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def command(tag: str, port: int, host: str = HOST) -> list[str]:
    """Return the command that serves a Bento, for callers that start processes in their own way."""
    return [sys.executable, "-m", "bentoml", "serve", tag, "--host", host, "--port", str(port)]


def start(
    settings: Settings, tag: str, port: int, *, log: Path, environment: Mapping[str, str] | None = None
) -> Server:
    """Start serving a Bento; it follows releases unless `settings.serving_digest` names one bundle.

    The server gets SIGTERM when the calling thread ends (Linux). It is not ready yet: call `Server.wait_ready`.

    Args:
        settings: of the service: store, state.
        tag: of the Bento, below `settings.bentoml_home`.
        port: to listen on.
        log: the file to append its output to.
        environment: variables in addition to those of the settings.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _DIE_WITH_PARENT, *command(tag, port)[1:]],
            env=settings.child_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, which `stop` kills
        )
    return Server(f"http://{HOST}:{port}", f"http://{HOST}:{settings.probes_port(port)}", process, log)


@contextlib.contextmanager
def serving(
    settings: Settings, tag: str, *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve a Bento, ready, during a `with` block; its log is `{state}/logs/service-{port}.log`."""
    port = free_port() if port is None else port
    log = settings.state / "logs" / f"service-{port}.log"
    server = start(settings, tag, port, log=log, environment=environment)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def smoke(settings: Settings, tag: str, digest: str, bodies: Sequence[Any]) -> list[Any]:
    """Start a Bento on exactly this bundle, send it requests, and return the answers.

    Its predictions are written to a temporary folder and stay there: no caller got them.

    Args:
        settings: of the platform.
        tag: of the Bento.
        digest: of the bundle that must answer.
        bodies: requests, each a row or a list of rows.

    Raises:
        ServerProblem: it did not start, refused a request, or answered with another bundle.
    """
    settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="smoke-") as state:
        # Nothing of the platform's own service: neither its log, nor its port, nor its callers.
        smoke_settings = settings.replace(
            state=Path(state),
            serving_digest=digest,
            serving_ships=False,
            serving_drain_s=0.0,
            serving_probes_port=None,
            serving_callers=None,
        )
        with serving(smoke_settings, tag, environment={"BENTOML_HOME": str(settings.bentoml_home)}) as server:
            answers = []
            for body in bodies:
                status, answer = server.predict(body)
                rows = answer if isinstance(answer, list) else [answer]
                if status != 200 or any(row["digest"] != digest for row in rows):
                    raise ServerProblem(f"{tag} on bundle {digest} answered {status}: {json.dumps(answer)[:500]}")
                answers.append(answer)
    return answers


def free_port() -> int:
    """Return a port that nobody listens on, nor on the next one, where a service's probes are by default.

    Below those that the system gives to outgoing connections: a start takes seconds, and one might take it meanwhile.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind((HOST, port))
            second.bind((HOST, port + 1))
            return port


def probes_of(settings: Settings, address: str) -> str:
    """Return the address of the probes of a service at `address`."""
    scheme, host, port = address.rsplit(":", 2)
    return f"{scheme}:{host}:{settings.probes_port(int(port))}"


def _ask(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()
