"""Decide whether a request may begin: how many are under way, and whether the service is about to end.

`protocol` asks before a request becomes a task, so a refusal costs no more than reading its head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sized

IN_FLIGHT_MAX = 256
"""At .3 ms of CPU per request, the last of so many waits .08 s."""
IN_FLIGHT_MIN = 4
"""Begin whatever a request takes: also a list of a second of CPU is answered."""
KEPT = 0.99
"""Of what was learnt, per answer: the last hundred count most."""
RETRY_AFTER_S = 1


class Gate:
    """The state of a worker that decides about new requests.

    Attributes:
        limit: requests that may be under way in this worker, with the connections that no worker has accepted: as many
            as are answered within `wait_s`, which answers teach. With little CPU that is few.
        unread: requests under way whose body has not arrived: they cost nothing yet, and do not count.
        tasks: the requests of this worker, as uvicorn counts them; empty before the first connection.
        is_draining: whether the worker ends soon; each answer then closes its connection.
        waiting: counts the connections that no worker has accepted.
        note_refused: called with the path of each refused request.
    """

    def __init__(self, in_flight_max: int = IN_FLIGHT_MAX, wait_s: float = math.inf) -> None:
        self.limit = self._in_flight_max = in_flight_max
        self._wait_s = wait_s
        self._took_s = self._under_way = 0.0
        self.unread = 0
        self.tasks: Sized = ()
        self.is_draining = False
        self.waiting: Callable[[], int] = lambda: 0
        self.note_refused: Callable[[str], None] = lambda _path: None

    def has_one(self) -> bool:
        """Tell whether exactly one request is under way: whoever asks during a request is alone."""
        return len(self.tasks) == 1

    def count(self) -> int:
        """Return how many requests are under way and cost something."""
        return len(self.tasks) - self.unread

    def learn(self, took_s: float, under_way: int) -> None:
        """Set the limit by what the last answers took.

        Args:
            took_s: from the head of a request that came with its whole body to the last byte of its answer.
            under_way: requests when it began, itself included: they shared that time.
        """
        self._took_s = KEPT * self._took_s + took_s
        self._under_way = KEPT * self._under_way + under_way
        count = max(IN_FLIGHT_MIN, self._wait_s * self._under_way / max(self._took_s, 1e-9))
        self.limit = int(min(count, self._in_flight_max))

    def is_full(self, tasks: int, *, is_new: bool) -> bool:
        """Tell whether another request must be refused.

        Args:
            tasks: requests of this worker.
            is_new: whether it is the first of its connection: only those have waited to be accepted, and pay for
                the system call that counts them.
        """
        count = tasks - self.unread
        return count >= self.limit or (is_new and count + self.waiting() >= self.limit)
