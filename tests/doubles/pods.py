"""Serve a Bento on this machine as its pod does: one process, without Bento's supervisor."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from platform_assets.base.settings import Settings
from platform_assets.serving.run import build, child


def command(port: int) -> list[str]:
    """Return the command of a pod's process; it runs in the folder `src` of the Bento."""
    return [sys.executable, "-m", build.SERVER, "--host", child.HOST, "--port", str(port)]


def start(
    settings: Settings, bento: Path, port: int, log: Path, environment: Mapping[str, str] | None = None
) -> child.Server:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(port),
            cwd=bento / "src",
            env=settings.child_environment(environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = f"http://{child.HOST}:{port}"
    return child.Server(address, child.probes_of(settings, address), process, log)


@contextlib.contextmanager
def serving(
    settings: Settings, bento: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[child.Server]:
    """Serve a Bento, ready, during a `with` block."""
    port = child.free_port() if port is None else port
    server = start(settings, bento, port, settings.state / "logs" / f"pod-{port}.log", environment)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


class Kubelet:
    """Starts the process of a pod again whenever it ends."""

    def __init__(
        self, settings: Settings, bento: Path, port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        log = settings.state / "logs" / f"pod-{port}.log"
        self._start = lambda: start(settings, bento, port, log, environment)
        self.server = self._start()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self.server.wait_ready()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.server.stop()

    def _watch(self) -> None:
        while not self._is_over.wait(0.05):
            if self.server.process.poll() is not None:
                self.server = self._start()
