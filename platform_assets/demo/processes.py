"""Start the servers of a demo as child processes that cannot outlive it, and measure the memory of the process tree."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from platform_assets.base.problems import Problem

HOST = "127.0.0.1"
GRACE_S = 8.0
"""Seconds that processes have to end after SIGTERM."""


class ChildEnded(Problem, RuntimeError):
    """A server ended unexpectedly; the message shows the end of its log."""


@dataclass(frozen=True)
class Child:
    """A command that runs on a leash, in a process group of its own.

    Attributes:
        name: for messages.
        leash: the process that holds the command, see `leash.py`.
        log: where both of its outputs go.
    """

    name: str
    leash: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise `ChildEnded` when it is not running."""
        if (status := self.leash.poll()) is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            excerpt = "\n".join([*_causes(lines), *lines[-15:]])
            raise ChildEnded(f"{self.name} ended with status {status}; the end of {self.log}:\n{excerpt}")


def _causes(lines: list[str]) -> list[str]:
    """Return the errors that caused the last one: Python prints them first, far above the end of a log."""
    joints = [at for at, line in enumerate(lines) if line.startswith(("The above exception was", "During handling of"))]
    return [f"caused by {next((line for line in reversed(lines[:at]) if line.strip()), '')}" for at in joints]


@dataclass
class Children:
    """The child processes of a demo; leaving the context ends them all, the newest first.

    Attributes:
        environment: of each child.
        logs: the folder of what they print.
        grace_s: how long each may take to end by itself, in seconds.
        keeps: file descriptors that leashes hold open until all their processes have ended.
        claims: of ports, against other demos.
    """

    environment: Mapping[str, str]
    logs: Path
    grace_s: float = GRACE_S
    keeps: tuple[int, ...] = ()
    started: list[Child] = field(default_factory=list)
    claims: list[socket.socket] = field(default_factory=list)

    def free_port(self, first: int, taken: Sequence[int] = (), count: int = 1) -> int:
        """Return the first free port from `first` on that no other demo has claimed; it stays ours until the end.

        A server listens only some seconds after its port was chosen. See `free_port` for the arguments.
        """
        claimed: list[int] = []
        while True:
            port = free_port(first, [*taken, *claimed], count)
            ports = range(port, port + count)
            if self._claim(ports):
                return port
            claimed += ports

    def _claim(self, ports: Sequence[int]) -> bool:
        if sys.platform != "linux":
            return True
        claims = [socket.socket(socket.AF_UNIX) for _ in ports]
        try:
            for claim, port in zip(claims, ports, strict=True):
                claim.bind(f"\0driftline-port-{port}")  # no file: it is gone with its last process
        except OSError:
            for claim in claims:
                claim.close()
            return False
        self.claims += claims
        return True

    def start(self, name: str, command: Sequence[str], *, is_shown: bool = False) -> Child:
        """Start a command; its output goes to `{logs}/{name}.log`.

        Call it from a thread that lives as long as the process: Linux ends the leash with the thread.

        Args:
            name: for messages and the log.
            command: a program and its arguments, or `-m`, a Python module and its arguments.
            is_shown: whether its output goes where our own goes, instead of to the log.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        leash = [sys.executable, "-m", "platform_assets.demo.leash", str(os.getpid()), str(self.grace_s)]
        arguments = [sys.executable, *command] if command[0] == "-m" else list(command)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*leash, *arguments],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=None if is_shown else output,
                stderr=None if is_shown else subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.keeps,
            )
        child = Child(name, process, log)
        self.started.append(child)
        return child

    def check(self) -> None:
        """Raise `ChildEnded` when one of them is not running."""
        for child in self.started:
            child.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self.started):
            child.leash.send_signal(signal.SIGTERM)
        for child in self.started:
            try:
                child.leash.wait(self.grace_s + 5)
            except subprocess.TimeoutExpired:
                child.leash.kill()
                child.leash.wait()
        for claim in self.claims:
            claim.close()


def free_port(first: int, taken: Sequence[int] = (), count: int = 1) -> int:
    """Return the first free port from `first` on, at this machine's own address.

    Args:
        first: where to begin.
        taken: ports that will be taken.
        count: how many ports in a row must be free.
    """
    for port in range(first, first + 200):
        ports = range(port, port + count)
        if all(_is_free(number) for number in ports) and not set(ports) & set(taken):
            return port
    raise OSError(f"no port between {first} and {first + 199} is free on {HOST}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def wait_for(url: str, *, check: Callable[[], None], timeout_s: float) -> None:
    """Wait until a server answers 200 at `url`.

    Args:
        check: raises when waiting is pointless, such as `Children.check`.
        timeout_s: after which `TimeoutError` is raised, with the last answer.
    """
    deadline, answer = time.monotonic() + timeout_s, "none"
    while time.monotonic() < deadline:
        check()
        try:
            response = httpx.get(url, timeout=5.0)
        except httpx.TransportError as error:
            answer = f"{type(error).__name__}: {error}"
        else:
            if response.status_code == httpx.codes.OK:
                return
            answer = f"{response.status_code}: {response.text[:200]}"
        time.sleep(0.15)
    raise TimeoutError(f"{url} did not answer 200 within {timeout_s:.0f} s; the last answer was {answer}.")


class MemoryWatch:
    """Sample the memory of this process and all below it, every two seconds, in a thread.

    Reading it takes some milliseconds per process.
    """

    def __init__(self, interval_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self._interval_s = interval_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._interval_s):
            self.peak_bytes = max(self.peak_bytes, tree_memory_bytes())


def tree_memory_bytes() -> int:
    """Return the resident bytes of this process and all below it.

    Pages that several of them share count once in all (PSS): a run is a copy of another process, and PyTorch with CUDA
    maps gigabytes of libraries into each.
    """
    root = psutil.Process()
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:  # of another user, or without the right to look
            total += process.memory_info().rss
    return total


def tree_cpu_s() -> float:
    """Return the CPU seconds of this process and all below it, those included that have ended and were waited for."""
    root = psutil.Process()
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total
