"""Decide whether a request may begin: how many are under way, and whether the service is about to end.

`protocol` asks before a request becomes a task, so a refusal costs no more than reading its head.
"""

from __future__ import annotations

from collections.abc import Callable, Sized

IN_FLIGHT_MAX = 256
"""At .3 ms of CPU per request, the last of so many waits .08 s."""
RETRY_AFTER_S = 1


class Gate:
    """The state of a worker that decides about new requests.

    Attributes:
        in_flight_max: requests that may be under way in this worker, with the connections that no worker has accepted.
        unread: requests under way whose body has not arrived: they cost nothing yet, and do not count.
        tasks: the requests of this worker, as uvicorn counts them; empty before the first connection.
        is_draining: whether the worker ends soon; each answer then closes its connection.
        waiting: counts the connections that no worker has accepted.
        note_refused: called with the path of each refused request.
    """

    def __init__(self, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self.in_flight_max = in_flight_max
        self.unread = 0
        self.tasks: Sized = ()
        self.is_draining = False
        self.waiting: Callable[[], int] = lambda: 0
        self.note_refused: Callable[[str], None] = lambda _path: None

    def has_one(self) -> bool:
        """Tell whether exactly one request is under way: whoever asks during a request is alone."""
        return len(self.tasks) == 1

    def is_full(self, tasks: int, *, is_new: bool) -> bool:
        """Tell whether another request must be refused.

        Args:
            tasks: requests of this worker.
            is_new: whether it is the first of its connection: only those have waited to be accepted, and pay for
                the system call that counts them.
        """
        count = tasks - self.unread
        return count >= self.in_flight_max or (is_new and count + self.waiting() >= self.in_flight_max)
