"""Measure how long the event loop makes others wait, and how many connections it has not accepted.

The highest wait of the last seconds stays visible, whenever somebody looks. `Metrics.note` shows one that goes on.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

TICK_S = 0.1
"""Seconds between two measurements: as often as uvicorn wakes this loop anyway, to look whether it is to end."""
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


async def measure(note: Callable[[float, int], None], waiting: Waiting) -> None:
    """Measure the running loop until this is cancelled.

    Args:
        note: gets the seconds by which a turn came late, and the number of connections that wait to be accepted.
        waiting: counts those connections.
    """
    while True:
        begin_s = monotonic()
        await asyncio.sleep(TICK_S)
        note(max(0.0, monotonic() - begin_s - TICK_S), waiting.count())
