"""Containers as processes of this machine, what they write, and the journal of them. Pods do not belong here."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.doubles.cluster.objects import Object, Store

DIES_WITH_ITS_THREAD = ("env", "--default-signal", "setpriv", "--pdeathsig", "KILL", "--")
STAMP = len("2026-01-01T00:00:00.000000000Z ")
BLOCK = 1 << 18


class Log:
    """What a container wrote: a file with a timestamp before each line, which several may follow."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path, self.is_closed = path, False
        self._store, self._grown, self._rest = store, threading.Condition(), b""
        self._last_ns = self._size = 0
        path.touch()

    def write(self, data: bytes) -> None:
        """Add what came; a line is shown when it is whole. Each has a time of its own, by which readers tell them."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        stamped = []
        for line in lines:
            self._last_ns = max(self._last_ns + 1, time.time_ns() + int(self._store.skew_s * 1e9))
            second = datetime.fromtimestamp(self._last_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            stamped.append(f"{second}.{self._last_ns % 10**9:09d}Z ".encode() + line + b"\n")
        with self._grown, self.path.open("ab", buffering=0) as file:
            self._size += file.write(b"".join(stamped))
            self._grown.notify_all()

    def close(self) -> None:
        """Show the last line, and let followers end."""
        self.write(b"\n" if self._rest else b"")
        with self._grown:
            self.is_closed = True
            self._grown.notify_all()

    def read(self, *, follow: bool, tail: int | None, timestamps: bool, since: str) -> Iterator[bytes]:
        """Yield blocks of whole lines, an empty one when nothing came for a while; `since` is a timestamp's prefix."""
        with self.path.open("rb") as file:
            lines = list(deque(file, maxlen=tail)) if tail is not None else []
            while True:
                with self._grown:
                    size, is_last = self._size, self.is_closed or not follow
                while lines or file.tell() < size:
                    # To the size, which ends a line, and no farther: what follows may be half written.
                    lines = lines or [line + b"\n" for line in file.read(size - file.tell()).split(b"\n")[:-1]]
                    stored = [line for line in lines if line.decode(errors="replace")[: len(since)] >= since]
                    yield b"".join(stored if timestamps else [line[STAMP:] for line in stored])
                    lines = []
                if is_last:
                    return
                with self._grown:
                    if not self.is_closed and self._size == size:
                        self._grown.wait(0.5)
                yield b""


class Container:
    """A container of a pod: a process in a session of its own, which dies with the thread that started it."""

    def __init__(self, pod: Object, spec: Object, log: Log, *, is_init: bool) -> None:
        self.name: str = spec["name"]
        self.pod, self.spec, self.log, self.is_init = pod, spec, log, is_init
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes]

    def command(self, environment: Mapping[str, str]) -> list[str]:
        command = [*(self.spec.get("command") or []), *(self.spec.get("args") or [])] or ["true"]
        return [sys.executable if command[0] == "python" else command[0], *command[1:]]

    def start(self, environment: Mapping[str, str], folder: Path) -> tuple[int, int]:
        """Start the process and return descriptors of its output and its end."""
        self.started_at = datetime.now(UTC)
        command = [*DIES_WITH_ITS_THREAD, *self.command(environment)]
        out = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "bufsize": 0}
        self._process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **out)
        os.set_blocking(self._process.stdout.fileno(), False)
        return self._process.stdout.fileno(), os.pidfd_open(self._process.pid)

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def signal(self, number: int) -> None:
        """Send a signal: SIGTERM to the process alone, SIGKILL to all that it started."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self._process.pid, number)

    def drain(self) -> bool:
        """Take what it wrote into its log, a bounded amount at a time; False at the end of it."""
        while data := self._process.stdout.read(BLOCK):
            self.log.write(data)
            if len(data) < BLOCK:
                return True
        return data is None

    def reap(self) -> None:
        """Take note of the end of the process, and end what it left behind."""
        self.ended_at = datetime.now(UTC)
        self.signal(signal.SIGKILL)
        code = self._process.wait()
        self.exit_code = code if code >= 0 else 128 - code
        self.drain()
        self._process.stdout.close()


class Journal:
    """What really happened, which code under test never reads: a line for a container, or for a pod that never ran.

    `cause` is `natural` or the fault that hit it while it ran (one that was done already still ended with 0), times
    are this machine's, `exit_code` is 128 plus a signal.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._known: set[str] = set()
        path.touch()

    def write(self, pod: Object, cause: str, ran: Container | None = None) -> None:
        """Write that a container of a pod ran; without one that none did, once and only if that is so."""
        entry = {key: pod["metadata"].get(key) for key in ("namespace", "name", "uid", "labels")}
        entry |= {"node": pod["spec"].get("nodeName"), "cause": cause, "exit_code": ran.exit_code if ran else None}
        entry["container"] = ran.name if ran else None
        times = {"started_at": ran.started_at, "ended_at": ran.ended_at} if ran else {"ended_at": datetime.now(UTC)}
        entry |= {"started_at": None} | {key: at.isoformat(timespec="microseconds") for key, at in times.items() if at}
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            if ran or entry["uid"] not in self._known:
                self._known |= {entry["uid"]} - {None}
                file.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        with self._lock:
            return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
