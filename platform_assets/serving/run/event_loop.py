"""Measure, from outside the event loop, how long it makes others wait, and how many connections it has not accepted.

An overloaded loop would report late too. So a thread requests turns of the
loop, one after the other, and reports how long each takes, also while it still waits; the highest of the last seconds
stays visible, whenever somebody looks. While nobody asks anything it requests few, because a replica without callers
should cost little: the first request wakes it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from platform_assets.serving.answer.admission import Gate

TICK_S = 0.1
"""Seconds between two requests for a turn, and between two reports of a wait that goes on."""
IDLE_S = 1.0
"""Seconds between two requests for a turn while nobody asks anything."""
WINDOW_S = 75.0
"""For how long the highest value stays visible: Prometheus scrapes once a minute by default, and may be late."""
HUNG_S = 10.0
"""A process whose event loop has had no turn for so long is not alive. No slice of work takes a hundredth of it."""
_INFO_BYTES, _BACKLOG = 104, slice(24, 28)
"""In `struct tcp_info`: `tcpi_unacked`, which is the length of the accept queue for a listening socket."""


class Highest:
    """The highest of the values of the last seconds."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._values: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, value: float) -> float:
        """Add a value and return the highest one within the window."""
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        self._values.append((now_s, value))
        while now_s - self._values[0][0] > self._window_s:
            self._values.popleft()
        return self._values[0][1]


class Waiting:
    """How many connections wait in the kernel until this process accepts them; Linux reports it for listening sockets.

    The loop accepts one connection per turn, however many wait: neither its lag nor any call shows the others.
    """

    def __init__(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Take copies of the sockets at which callers arrive."""
        self._sockets = sockets

    def count(self) -> int:
        """Return how many connections wait at all sockets."""
        infos = (copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES) for copy in self._sockets)
        return sum(int.from_bytes(info[_BACKLOG], sys.byteorder) for info in infos)

    def close(self) -> None:
        """Close the copies."""
        for copy in self._sockets:
            copy.close()


class LoopMonitor:
    """The thread that requests turns of one loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[float, int, bool], None],
        gate: Gate,
        waiting: Waiting,
    ) -> None:
        """Prepare.

        Args:
            loop: of the process.
            note: called from the thread after each turn, and every `TICK_S` during a long one: the seconds that it has
                taken, the number of connections that wait to be accepted, and whether it is over.
            gate: knows the requests of the process.
            waiting: counts those connections; closed when the thread ends.
        """
        self._loop, self._note, self._gate = loop, note, gate
        self._waiting = waiting
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop monitor", daemon=True)

    def start(self) -> None:
        """Start requesting turns."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._is_over.set()
        self._gate.began.set()
        self._thread.join()

    def _run(self) -> None:
        waiting = self._waiting
        while not self._is_over.is_set():
            has_turn, asked_s = threading.Event(), monotonic()
            try:
                self._loop.call_soon_threadsafe(has_turn.set)
            except RuntimeError:
                break  # the loop is closed
            while not has_turn.wait(TICK_S) and not self._is_over.is_set():
                self._note(monotonic() - asked_s, waiting.count(), False)
            self._note(monotonic() - asked_s, waiting.count(), has_turn.is_set())
            self._pause()
        waiting.close()

    def _pause(self) -> None:
        """Wait a tick, or while nobody asks anything until somebody does."""
        began = self._gate.began
        if began.is_set() or self._gate.tasks or self._waiting.count():
            began.clear()
            self._is_over.wait(TICK_S)
        else:
            began.wait(IDLE_S)
