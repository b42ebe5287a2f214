"""Run jobs in background threads: jobs with a deadline, because they may hang, and jobs that are repeated.

All threads are daemons: the process ends without waiting for a disk, a store or a graph that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import TypeVar

from platform_assets.base.problems import Problem

SIGNAL_S = 1.0
"""How long one wait for a job may take: a signal that comes just before a wait is handled only after it."""
MAX_ABANDONED = 3
"""How many jobs past their deadline may still run before no further job is started."""
Result = TypeVar("Result")


class Overdue(Problem):
    """A job did not end in time, or could not start because of such jobs."""


class Deadline:
    """Gives each job the same time, and abandons those that take longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._abandoned: list[threading.Thread] = []

    def run(self, name: str, job: Callable[[], Result]) -> Result:
        """Return what a job returns, or raise what it raises; a result after the deadline is dropped.

        Args:
            name: of the job, a noun for messages: `release 7`.
            job: runs in a thread of its own; it must not change anything that others read.

        Raises:
            Overdue: it has not ended in time, or `MAX_ABANDONED` earlier jobs still run.
        """
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if len(self._abandoned) >= MAX_ABANDONED:
            names = ", ".join(thread.name for thread in self._abandoned)
            raise Overdue(f"{name} was not started, because {MAX_ABANDONED} others hang: {names}.")
        future: Future[Result] = Future()

        def work() -> None:
            try:
                future.set_result(job())
            except Exception as problem:  # noqa: BLE001  # raised in the caller's thread
                future.set_exception(problem)
            except BaseException as problem:  # noqa: BLE001  # a panic of a library in Rust is not an Exception
                future.set_exception(RuntimeError(f"{type(problem).__name__}: {problem}"))

        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        until_s = monotonic() + self.seconds
        while thread.is_alive() and (left_s := until_s - monotonic()) > 0:
            thread.join(min(left_s, SIGNAL_S))
        if not future.done():
            self._abandoned.append(thread)  # a thread can be neither killed nor bounded
            raise Overdue(f"{name} did not end within {self.seconds:g} s; it is abandoned.")
        return future.result()


class Repeated:
    """Repeats a job in a thread of its own."""

    def __init__(self, name: str, job: Callable[[], object], every_s: float) -> None:
        """Prepare; after `start`, the first run begins at once.

        Args:
            name: of the thread.
            job: an exception from it ends the thread; `has_ended` shows that.
            every_s: the pause between two runs.
        """
        self.name = name
        self.was_done = threading.Event()
        self._job, self._every_s = job, every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start; `was_done` is set after the first run."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further run; one under way is not waited for."""
        self._is_over.set()

    @property
    def has_ended(self) -> bool:
        """Whether an exception ended the thread, so that the job is not repeated any more."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._is_over.is_set()

    def _work(self) -> None:
        while not self._is_over.is_set():
            self._job()
            self.was_done.set()
            self._is_over.wait(self._every_s)
