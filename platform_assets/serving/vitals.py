"""Measure from beside the event loop how long it lets others wait.

Belongs here: the loop's lag, and connections that nobody has accepted yet. Does not belong here: publishing them
(`metrics`).

A loop that is overloaded also answers `/metrics` late, and answers for other workers too. So a thread asks the loop for
a turn, over and over, and notes how long that has taken, also while it is still waiting; the highest of the last
seconds stays visible, whenever somebody looks.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic

TICK_S = 0.1
"""How often the loop is asked, and how often a wait that goes on is noted."""
WINDOW_S = 15.0
"""For how long the highest value stays visible: at least as long as the time between two scrapes."""
_INFO_BYTES, _BACKLOG = 104, slice(24, 28)
"""Of `struct tcp_info`: `tcpi_unacked`, which is the length of the accept queue where a socket listens."""


class Highest:
    """The highest of the values of the last seconds."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._values: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, value: float) -> float:
        """Add a value and return the highest of those that are not older than the window."""
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        self._values.append((now_s, value))
        while now_s - self._values[0][0] > self._window_s:
            self._values.popleft()
        return self._values[0][1]


class Waiting:
    """How many connections wait in the kernel until a worker accepts them; Linux tells it of a socket that listens.

    The loop accepts one connection per turn, however many wait: neither its lag nor a call shows the others.
    """

    def __init__(self) -> None:
        """Find this process's sockets that listen."""
        found = (_listening(descriptor) for descriptor in _descriptors())
        # Two descriptors may be of one socket: a copy of ours may have the number of one that was closed meanwhile.
        by_inode: dict[int, socket.socket] = {}
        for held in found:
            if held is not None and by_inode.setdefault(os.fstat(held.fileno()).st_ino, held) is not held:
                held.close()
        self._sockets = list(by_inode.values())

    def count(self) -> int:
        """Return how many connections wait, of all sockets."""
        infos = (held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES) for held in self._sockets)
        return sum(int.from_bytes(info[_BACKLOG], sys.byteorder) for info in infos)

    def close(self) -> None:
        """Close our copies of the sockets."""
        for held in self._sockets:
            held.close()


def _descriptors() -> list[int]:
    place = Path("/proc/self/fd")
    return [int(entry.name) for entry in place.iterdir()] if place.is_dir() else []


def _listening(descriptor: int) -> socket.socket | None:
    """Return a copy of a TCP socket that listens, or None for anything else."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        copy = os.dup(descriptor)
    except OSError:  # closed meanwhile
        return None
    try:
        held = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    is_tcp = held.family in (socket.AF_INET, socket.AF_INET6) and held.type == socket.SOCK_STREAM
    if is_tcp and held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return held
    held.close()
    return None


class Vitals:
    """The thread that asks one loop for turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop, note: Callable[[float, int], None]) -> None:
        """Prepare.

        Args:
            loop: of the worker.
            note: called from the thread, every `TICK_S`, with the seconds that the loop has let us wait, and how many
                connections wait to be accepted.
        """
        self._loop, self._note = loop, note
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitals", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        waiting = Waiting()
        while not self._is_over.is_set():
            has_turn, asked_s = threading.Event(), monotonic()
            try:
                self._loop.call_soon_threadsafe(has_turn.set)
            except RuntimeError:
                break  # the loop is closed
            while not has_turn.wait(TICK_S) and not self._is_over.is_set():
                self._note(monotonic() - asked_s, waiting.count())
            self._note(monotonic() - asked_s, waiting.count())
            self._is_over.wait(TICK_S)
        waiting.close()
