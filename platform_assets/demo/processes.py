"""Start servers as child processes that cannot outlive this one, on a state that only one demo uses at a time."""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings

T = TypeVar("T")

HOST = "127.0.0.1"
GRACE_S = 8.0
"""Seconds that processes have to end after SIGTERM."""
POLL_S, SHOWN_EVERY_S = 0.2, 60.0
LOG_LINES = 40
"""How much of a log an error shows: Python prints the cause of an error far above its end."""
_CLAIMS = ExitStack()
"""Sockets that claim ports against other demos, until this process ends."""
atexit.register(_CLAIMS.close)


class ChildEnded(Problem, RuntimeError):
    """A server ended unexpectedly; the message shows the end of its log."""


class StateInUse(Problem, ValueError):
    """Another process uses the state; the message names it."""


@contextmanager
def sole_user(settings: Settings, command: str) -> Iterator[int]:
    """Hold the state, and yield the file descriptor that children must inherit (`Children.keeps`).

    Two daemons on one state would launch and end each other's runs. The kernel keeps the lock as long as any process
    has the file open: it is free once the holder, killed or not, and the leashes of all its children have ended.

    Args:
        command: what holds it, for the messages of others.

    Raises:
        StateInUse: another process holds it.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    # Not "w", which would empty the file of the process that holds the lock.
    with (settings.state / "in_use").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StateInUse(
                f"{settings.state} is in use by {file.read()}. Wait until it has ended (its servers need up to "
                f"{GRACE_S:.0f} s more), end it by Ctrl-C or kill, or use another folder (DRIFTLINE_STATE)."
            ) from None
        file.truncate(0)
        file.write(f"`{command}` (process {os.getpid()}, since {datetime.now(UTC).isoformat(timespec='seconds')})")
        file.flush()
        yield file.fileno()


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
            excerpt = "\n".join(lines[-LOG_LINES:])
            raise ChildEnded(f"{self.name} ended with status {status}; the end of {self.log}:\n{excerpt}")


@dataclass
class Children:
    """The child processes of a demo; leaving the context ends them all, the newest first.

    Attributes:
        environment: of each child.
        logs: the folder of what they print.
        grace_s: how long each may take to end by itself, in seconds.
        keeps: file descriptors that leashes hold open until all their processes have ended.
    """

    environment: Mapping[str, str]
    logs: Path
    grace_s: float = GRACE_S
    keeps: tuple[int, ...] = ()
    started: list[Child] = field(default_factory=list)

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
                # Ctrl-C in a terminal then reaches this process alone, which ends its children in their order.
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
                child.leash.wait(self.grace_s + 5)  # the leash itself sends SIGKILL after `grace_s`
            except subprocess.TimeoutExpired:
                child.leash.kill()
                child.leash.wait()


def free_port(first: int, count: int = 1) -> int:
    """Return the first free port from `first` on, at this machine's own address.

    No other demo takes it while this process lives: a server listens only some seconds after its port was chosen.

    Args:
        count: how many ports in a row must be free.
    """
    for port in range(first, first + 200):
        with ExitStack() as claims:
            try:
                for number in range(port, port + count):
                    with socket.socket() as probe:
                        # As servers bind: the port of one that has just ended is free despite TIME_WAIT.
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((HOST, number))
                    if sys.platform == "linux":
                        # An abstract name is not a file: it is gone with the last process that holds it.
                        claims.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0driftline-port-{number}")
            except OSError:
                continue
            _CLAIMS.push(claims.pop_all())
            return port
    raise OSError(f"no port between {first} and {first + 199} is free on {HOST}.")


def wait_for(url: str, *, check: Callable[[], None]) -> None:
    """Wait until a server answers 200 at `url`; see `wait_until`."""

    def is_ready() -> bool | None:
        try:
            return httpx.get(url, timeout=5.0).status_code == httpx.codes.OK or None
        except httpx.TransportError:
            return None

    wait_until(is_ready, f"an answer of {url}", check)


def wait_until(look: Callable[[], T | None], subject: str, check: Callable[[], None], pause_s: float = POLL_S) -> T:
    """Return what a look gives as soon as it is not None. Time alone ends nothing: a busy machine is not a fault.

    Args:
        subject: what is waited for; it is printed once a minute.
        check: raises when waiting is pointless, such as `Children.check`.
    """
    began_s = shown_s = time.monotonic()
    while (result := look()) is None:
        check()
        if time.monotonic() - shown_s >= SHOWN_EVERY_S:
            shown_s = time.monotonic()
            print(f"  waiting for {subject}, {shown_s - began_s:.0f} s so far", flush=True)
        time.sleep(pause_s)
    return result
