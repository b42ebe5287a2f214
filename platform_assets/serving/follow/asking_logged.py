"""Ask a loaded model logged requests, as a service answers them; only the process of a trial does.

Each row alone; then the lists as they came; then as many rows at once as one turn of a service's event loop shares.
Time is the CPU time of the process: other work on the machine adds to the clock, and a model has one thread and waits
for nothing, so a row that takes more CPU than the limit takes longer than it anywhere. A row beyond the limit is asked
again, and its fastest try counts, so that a refusal is repeatable.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import msgspec

from platform_assets.serving.answer.batching import run_graph
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.answer.requests import Refusal, Refused
from platform_assets.serving.answer.slices_of_work import slice_rows
from platform_assets.serving.follow.logged_requests import Answered, Logged
from platform_assets.serving.log.prediction_log import Unlogged
from platform_assets.serving.run.event_loop import HUNG_S
from platform_assets.training.sealed import ModelProblem

SLOW_IN = 100
"""One row in so many may be slow: the 99.9th percentile, which is the objective, would be two rows of two thousand."""
TRIES = 3
BEYOND_NOISE = 4
"""A row that takes so many times the limit is not asked again."""


class _Asking:
    """Asks a model; `begin` gets the rows of each request before it is sent."""

    def __init__(self, model: Model, logged: Logged, begin: Callable[[list[int]], None]) -> None:
        model.contract.clock_within = None  # a live product's requests were close to the clock when they came
        # The process may write no file.
        self._live, self._predictor = Live(model, None, "release"), Predictor(Unlogged(Path()))
        self._logged, self._begin = logged, begin
        self._digest, self._slow, self._slowest = model.digest, 0, (0.0, 0)

    def single(self, place: int) -> float | None:
        """Return a row's CPU seconds, None if the contract refuses it."""
        limit_s = self._logged.limit_ms / 1000
        taken_s = self.timed([place])
        tries = 1
        while taken_s is not None and limit_s < taken_s < BEYOND_NOISE * limit_s and tries < TRIES:
            taken_s = min(taken_s, self.timed([place]) or taken_s)
            tries += 1
        if taken_s is not None and taken_s > limit_s:
            self._slow += 1
            self._slowest = max(self._slowest, (taken_s, place))
        return taken_s

    def check_slow(self, rows: int) -> None:
        """Refuse the model if more of so many rows are slow than may be."""
        if self._slow > rows // SLOW_IN:
            taken_s, place = self._slowest
            self._begin([place])
            raise ModelProblem(
                f"bundle {self._digest} takes more than latency_ms={self._logged.limit_ms:g} of CPU for "
                f"{self._slow} of {rows} logged rows, {1000 * taken_s:.0f} ms for one; expected at most one in "
                f"{SLOW_IN}."
            )

    def turn(self, places: list[int]) -> None:
        """Ask single rows that share one run of the graph."""
        self._start(places)
        model = self._live.model
        every = [self._predictor.steps(self._live, self._logged.rows[place], perf_counter()) for place in places]
        works = [work for steps in every if (work := next(steps)) is not None]
        try:
            # Not `finish`, which scores works one by one if they fail together: a pod would not come to that.
            outputs = run_graph(model, [values for work in works for values in work.values(work.fresh)])
        except Refused as refused:
            raise ModelProblem(refused.sentence) from None
        if not all(model.contract.task.is_sound(output) for output in outputs):
            raise ModelProblem(f"bundle {self._digest} gives other answers to rows together than alone: {outputs}.")

    def timed(self, places: list[int]) -> float | None:
        """Ask a request; return its CPU seconds, or None if the contract refuses it."""
        rows = [self._logged.rows[place] for place in places]
        body = rows[0] if len(rows) == 1 else b"[" + b",".join(rows) + b"]"
        self._start(places)
        started_s = process_time()
        status, answer, _ = self._predictor.answer(self._live, body, perf_counter())
        taken_s = process_time() - started_s
        if status == 503:
            raise ModelProblem(msgspec.json.decode(answer, type=Refusal).error)
        return taken_s if status == 200 else None

    def _start(self, places: list[int]) -> None:
        self._begin(places)
        # Not a thread: SIGPROF ends the process while a graph runs, and counts CPU.
        signal.setitimer(signal.ITIMER_PROF, HUNG_S)


def ask(model: Model, logged: Logged, begin: Callable[[list[int]], None]) -> Answered:
    """Return how a model answers logged requests; its contract must not be used afterwards.

    Args:
        begin: called with the places of the rows before each request.

    Raises:
        ModelProblem: it gives an answer that is not valid, fails, or is slow; the last call of `begin` names the row.
    """
    gc.freeze()  # as a service does, so that no row's time holds a collection
    asking, count = _Asking(model, logged, begin), len(logged.rows)
    taken: dict[int, float] = {}
    for place in range(count):
        seconds = asking.single(place)
        asking.check_slow(count)  # no answer to come could make up for these
        if seconds is not None:
            taken[place] = seconds
    fit = list(taken)
    asking.check_slow(len(fit))  # what the contract refuses is no share of the answers
    for places in logged.lists:
        if fitting := [place for place in places if place in taken]:
            asking.timed(fitting)
    for size in range(2, 1 + min(slice_rows(model.contract), len(fit))):
        asking.turn(fit[:size])
    signal.setitimer(signal.ITIMER_PROF, 0)
    ordered_s = sorted(taken.values())
    slow_s = ordered_s[-1 - len(ordered_s) // SLOW_IN] if ordered_s else 0.0
    return Answered(rows=len(fit), unfit=count - len(fit), slow_ms=1000 * slow_s, peak_bytes=_peak())


def _peak() -> int:
    """Return the most memory that the process held, in bytes; 0 where the system does not say."""
    try:
        # Not `ru_maxrss`, which Linux passes on from the process that forked this one.
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
