"""The part of a serving process that is the same for whatever it serves: its turns, its probes, and its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from typing import Protocol

from platform_assets.serving.run.event_loop import LoopMonitor
from platform_assets.serving.run.probes import Pages, Probes
from platform_assets.serving.run.runtime import Runtime


class Counts(Protocol):
    """What counts for a whole process."""

    def note_lag(self, lag_s: float, waiting: int, had_turn: bool = True) -> None:
        """Publish how long the loop has made others wait; see `Metrics`."""

    def count_refused(self, path: str) -> None:
        """Count a request that was refused before it began."""


class Worker:
    """A process that serves."""

    def __init__(
        self,
        runtime: Runtime,
        pages: Pages,
        counts: Counts,
        note: Callable[[], None],
        *,
        watches_parent: bool = True,
    ) -> None:
        """Prepare.

        Args:
            runtime: whose gate, probes and times are those of the process.
            pages: of the probes' port.
            note: publishes the state, when the process is about to end.
            watches_parent: whether to end with the parent, Bento's supervisor.
        """
        self._runtime, self._counts, self._note = runtime, counts, note
        self._probes = None if runtime.probes is None else Probes(runtime.probes, pages)
        self._watches_parent = watches_parent
        self._watching: asyncio.Task[None] | None = None
        self._monitor: LoopMonitor | None = None

    def start(self) -> None:
        """Begin, after what is served was loaded: its objects are never collected."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        loop = asyncio.get_running_loop()
        if self._watches_parent:
            self._watching = loop.create_task(self._watch(os.getppid()), name="watch the parent")
        gate = self._runtime.gate
        waiting = self._runtime.waiting
        self._monitor = LoopMonitor(loop, self._counts.note_lag, gate, waiting)
        self._monitor.start()
        gate.waiting, gate.note_refused = waiting.count, self._counts.count_refused
        self._drain_on_signal(loop)
        if self._probes is not None:
            self._probes.start()

    async def end(self) -> None:
        """Take no further requests."""
        self._runtime.gate.is_draining = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._monitor is not None:
            self._runtime.gate.waiting = lambda: 0
            self._monitor.stop()

    async def close(self) -> None:
        """Answer no further probes."""
        if self._probes is not None:
            await asyncio.to_thread(self._probes.stop)

    def ended(self) -> list[str]:
        """Return the names of background jobs that ended by a bug."""
        watching = self._watching
        return [watching.get_name()] if watching is not None and watching.done() else []

    def _drain_on_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        """On SIGTERM be not ready first, go on answering for a while, and then let the server end as it would."""
        drain_s, gate = self._runtime.drain_s, self._runtime.gate
        if drain_s == 0 or threading.current_thread() is not threading.main_thread():
            return
        end = signal.getsignal(signal.SIGTERM)
        assert callable(end), end  # the server's own

        def drain() -> None:
            if not gate.is_draining:  # a process group may get the signal twice
                gate.is_draining = True
                self._note()
                loop.call_later(drain_s, end, signal.SIGTERM, None)

        signal.signal(signal.SIGTERM, lambda _number, _frame: loop.call_soon_threadsafe(drain))

    async def _watch(self, parent: int) -> None:
        while os.getppid() == parent:
            await asyncio.sleep(self._runtime.poll_s)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
