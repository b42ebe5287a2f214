"""Keep a platform's processes up like an init system, and kill them on purpose."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from platform_assets.demo import home
from platform_assets.demo.processes import HOST, Child, Children, free_port, wait_for, wait_for_port
from platform_assets.serving import run as serving
from platform_assets.settings import Settings

START_S = 180.0
LOOK_S = 0.3
PACE_S = 180.0
KINDS = ("daemon", "webserver", "code", "run", "trainer", "service", "worker")
"""Kinds of processes that are killed. `code` is the server of the definitions: the runs that it started die with it."""
KEPT_BACK = 6
STEP, WORKER, SPAWNED = "platform_assets.steps", "_bentoml_impl.worker", "multiprocessing.spawn"


@dataclass
class Supervisor:
    """Runs Dagster's three processes and the service; a context that ends all of them.

    Attributes:
        settings: the settings whose state they share.
        module: the code location.
        tag: tag of the served Bento; None before there is a service.
    """

    settings: Settings
    module: str
    tag: str | None = None
    restarts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._children = Children(self.settings.child_environment(), self.settings.state / "logs")
        self._running: dict[str, Child] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor")
        self.ui_port, self.code_port = free_port(3400), free_port(4400)
        self.service_port = free_port(3500, count=2)

    @property
    def address(self) -> str:
        """Address of the service."""
        return f"http://{HOST}:{self.service_port}"

    def __enter__(self) -> Self:
        home.prepare(self.settings)
        self._children.__enter__()
        self._thread.start()
        wait_for(f"http://{HOST}:{self.ui_port}/server_info", check=self.check, timeout_s=START_S)
        if self.tag is not None:
            wait_for(f"{self.address}/readyz", check=self.check, timeout_s=START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def check(self) -> None:
        """Raise if the supervisor itself has ended."""
        if not self._thread.is_alive() and not self._is_over.is_set():
            raise RuntimeError("the supervisor ended; see its traceback above.")

    def victims(self) -> dict[str, list[psutil.Process]]:
        """Return the processes that could be killed now, by kind."""
        result: dict[str, list[psutil.Process]] = {}
        for name, child in list(self._running.items()):
            with contextlib.suppress(psutil.NoSuchProcess):
                for main in psutil.Process(child.leash.pid).children():
                    result.setdefault(name, []).append(main)
                    for process in main.children(recursive=True):
                        kind = _kind(name, process)
                        if kind is not None:
                            result.setdefault(kind, []).append(process)
        return result

    def _watch(self) -> None:
        """Start everything, and restart whatever ended, in the thread that the leash of the processes depends on."""
        try:
            for name in self._commands():
                self._start(name)
            while not self._is_over.wait(LOOK_S):
                for name, child in self._running.items():
                    if child.leash.poll() is not None:
                        self.restarts[name] += 1
                        self._start(name)
        finally:
            self._children.__exit__(None, None, None)

    def _start(self, name: str) -> None:
        if self._is_over.is_set():
            return
        self._running[name] = self._children.start(name, self._commands()[name])
        if name == "code":
            wait_for_port(self.code_port, check=lambda: None, timeout_s=START_S)

    def _commands(self) -> dict[str, list[str]]:
        path = self.settings.dagster_home / "workspace.yaml"
        server = {"host": HOST, "port": self.code_port, "location_name": "driftline"}
        path.write_text(json.dumps({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
        workspace = ["--workspace", str(path)]
        code = ["--module-name", self.module, "--host", HOST, "--port", str(self.code_port)]
        result = {
            "code": ["-m", "dagster", "api", "grpc", *code, "--location-name", "driftline"],
            "webserver": ["-m", "dagster_webserver", "--host", HOST, "--port", str(self.ui_port), *workspace],
            "daemon": [str(Path(sys.executable).with_name("dagster-daemon")), "run", *workspace],
        }
        if self.tag is not None:
            result["service"] = list(serving.command(self.tag, self.service_port))
        return result


@dataclass
class Killer:
    """Kills with SIGKILL at seeded moments until it has killed `count` times; a context.

    A training is rare: the first one is always chosen, later ones by a coin, and the last kills are reserved until one
    has started. A fast machine may be done before a slow clock has struck often enough, so the player waits in between
    (`keep_pace`).
    """

    supervisor: Supervisor
    count: int
    seed: int
    pause_s: tuple[float, float] = (3.0, 13.0)
    killed: list[str] = field(default_factory=list)
    log: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._kill, name="killer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def keep_pace(self, share: float) -> None:
        """Wait until a share of the kills has happened, not counting those reserved for a training."""
        until_s = time.monotonic() + PACE_S
        while time.monotonic() < until_s and len(self.killed) < int(share * self._free):
            self.supervisor.check()
            time.sleep(LOOK_S)

    @property
    def _free(self) -> int:
        return self.count if "trainer" in self.killed else self.count - KEPT_BACK

    @property
    def is_done(self) -> bool:
        """Whether all kills have happened."""
        return len(self.killed) >= self.count

    def _kill(self) -> None:
        stream = random.Random(self.seed)
        began_s = time.monotonic()
        while not self.is_done and not self._is_over.wait(stream.uniform(*self.pause_s)):
            alive = self.supervisor.victims()
            kind = self._choice(stream, alive)
            if kind is None:
                continue
            victim = stream.choice(alive[kind])
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                self.killed.append(kind)
                self.log(f"  {time.monotonic() - began_s:6.1f} s: killed {kind} (process {victim.pid})")

    def _choice(self, stream: random.Random, alive: Mapping[str, list[psutil.Process]]) -> str | None:
        """Return the kind killed least so far among those alive, ties at random; a trainer by a coin."""
        if "trainer" in alive and ("trainer" not in self.killed or stream.random() < 0.5):
            return "trainer"
        if len(self.killed) >= self._free:
            return None
        counts = Counter(self.killed)
        least = min((counts[kind] for kind in alive), default=0)
        kinds = sorted(kind for kind in alive if counts[kind] == least)
        return stream.choice(kinds) if kinds else None


def _kind(server: str, process: psutil.Process) -> str | None:
    text = " ".join(process.cmdline())
    if server == "code":
        if STEP in text:
            return "trainer"
        return "run" if SPAWNED in text and "spawn_main" in text else None
    return "worker" if server == "service" and WORKER in text else None
