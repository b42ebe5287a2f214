"""Run beside the requests what may hang: jobs with a deadline, and jobs that are done again and again.

Belongs here: threads. Does not belong here: what runs in them. Each is a daemon: the process ends without waiting for
a disk, a store or a graph that does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from platform_assets.problems import Problem

LEFT_MAX = 3
"""How many jobs that ran out of time may be left running before no other one is begun."""
Result = TypeVar("Result")


class Overdue(Problem):
    """A job that has not ended in time, or could not begin because of such jobs."""


class Deadline:
    """Gives each job the same time, and leaves behind what takes longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._left: list[threading.Thread] = []

    def run(self, name: str, job: Callable[[], Result]) -> Result:
        """Return what a job returns, or raise what it raises; a result that comes later is dropped.

        Args:
            name: of the job, a noun for the message: `release 7`.
            job: runs in a thread of its own; it must change nothing that others read.

        Raises:
            Overdue: it has not ended in time, or `LEFT_MAX` others before it still run.
        """
        self._left = [thread for thread in self._left if thread.is_alive()]
        if len(self._left) >= LEFT_MAX:
            left = ", ".join(thread.name for thread in self._left)
            raise Overdue(f"{name} is not begun, because {LEFT_MAX} others hang: {left}.")
        future: Future[Result] = Future()

        def work() -> None:
            try:
                future.set_result(job())
            except BaseException as problem:  # noqa: BLE001  # raised in the caller's thread
                future.set_exception(problem)

        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        thread.join(self.seconds)
        if not future.done():
            self._left.append(thread)
            raise Overdue(f"{name} has not ended within {self.seconds:g} s; it is left alone.")
        return future.result()


class Repeated:
    """Does a job again and again, in a thread of its own."""

    def __init__(self, name: str, job: Callable[[], object], every_s: float) -> None:
        """Prepare; `start` begins with the first time at once.

        Args:
            name: of the thread.
            job: ends the thread when it raises, which `has_ended` shows.
            every_s: the pause between two times.
        """
        self.name = name
        self.was_done = threading.Event()
        self._job, self._every_s = job, every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin; `was_done` is set after the first time."""
        self._thread.start()

    def stop(self) -> None:
        """Let no other time begin; one under way is not waited for."""
        self._is_over.set()

    @property
    def has_ended(self) -> bool:
        """Whether the job raised something, so that nothing is done any more though nobody asked for that."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._is_over.is_set()

    def _work(self) -> None:
        while not self._is_over.is_set():
            self._job()
            self.was_done.set()
            self._is_over.wait(self._every_s)
