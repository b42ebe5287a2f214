"""Notice in a process of a shared training that no step has ended for too long, and say what it was doing."""

from __future__ import annotations

import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LEAST_S = 30.0
MEDIANS = 10
"""A step hangs that takes ten times the median step, and `LEAST_S` at least."""
PATIENCE_S = 300.0
"""For the first step, which may compile, and for a save, which may go through a slow network."""
WAITING, SAVING = "waiting for its peers", "saving"


class Watchdog:
    """Notes when steps, batches of an evaluation and saves of this process end, and reports when none does.

    Its thread touches no tensor, and works while the main thread waits for other processes in torch.

    Args:
        rank: of this process.
        on_hang: called once, in the thread, with a sentence.
    """

    def __init__(self, rank: int, on_hang: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._rank, self._on_hang, self._clock = rank, on_hang, clock
        self._took_s = deque[float](maxlen=101)
        self._phase, self._step, self._at_s = "computing", 0, clock()
        self._is_first_saving, self._over = False, threading.Event()

    @contextmanager
    def watching(self, done: int) -> Iterator[None]:
        """Watch while the block takes steps, of which some are done."""
        self._step, self._at_s = done, self._clock()
        thread = threading.Thread(target=self._watch, name="watch the steps", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Say what the block does, `WAITING` or `SAVING`; elsewhere the process computes."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def step_ended(self, done: int) -> None:
        """Note the end of step number `done`."""
        self._took_s.append(self._clock() - self._at_s)
        self._step, self._is_first_saving = done, False
        self.went_on()

    def went_on(self) -> None:
        """Note the end of a save, or of a batch of an evaluation."""
        self._at_s = self._clock()

    def first_saves(self) -> None:
        """Note that the first process, which the others wait for in the next step, saves now."""
        self._is_first_saving = True
        self.went_on()

    def verdict(self) -> str:
        """Return a sentence that says what hangs; empty while nothing does."""
        median_s = statistics.median(self._took_s) if self._took_s else 0.0
        limit_s, silent_s = max(LEAST_S, MEDIANS * median_s), self._clock() - self._at_s
        is_saving = self._phase == SAVING or (self._phase == WAITING and self._is_first_saving)
        if is_saving or not self._took_s:
            limit_s = max(PATIENCE_S, limit_s)
        if silent_s <= limit_s:
            return ""
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        place = traceback.extract_stack(frame)[-1]
        return (
            f"no step has ended for {silent_s:.0f} s (median {median_s:.3g} s): rank {self._rank} was {self._phase} "
            f"in step {self._step + 1}, in {place.name} ({Path(place.filename).name}, line {place.lineno})"
        )

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            if sentence := self.verdict():
                self._on_hang(sentence)
                return
