"""Let a look outlive its tick: where Dagster's database is slow, a tick ends and a later one takes the look's result.

Dagster evaluates a deployment's sensors in turn, so a tick of ours that waits delays the host's own. Nothing of a look
is lost or done twice: while it goes on, no other one begins.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import dagster as dg

from platform_assets.data import source_calls

WAIT_S = 4.0
"""How long a tick waits for its look, within which one source may hang. It ends within 5 s."""
QUICK_S = 1.0
"""After a look that took no longer, the database answers quickly enough for a tick's log."""


class OwnContext:
    """What a look takes of its tick's context, with an instance of its own, because a tick closes its context's."""

    def __init__(self, context: dg.SensorEvaluationContext) -> None:
        self.cursor, self.repository_def = context.cursor, context.repository_def
        self.log, self.lines = logging.Logger(__name__), list[logging.LogRecord]()
        self.log.addFilter(self.lines.append)  # type: ignore[arg-type]  # None, so no handler gets the line
        self._ref, self._opened = context.instance_ref, ExitStack()
        self._instance: dg.DagsterInstance | None = None
        self._lock = threading.Lock()

    @property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's runs and events; opened when it is first asked for, which itself asks the database."""
        # Not cached_property, which has one lock per class before Python 3.12: one look would hold all others.
        with self._lock:
            if self._instance is None:
                assert self._ref is not None
                self._instance = self._opened.enter_context(dg.DagsterInstance.from_ref(self._ref))
            return self._instance

    def close(self) -> None:
        """Close the instance."""
        self._opened.close()


Context = dg.SensorEvaluationContext | OwnContext


class LateLooks:
    """The looks of one sensor, of which one is under way at a time."""

    def __init__(self) -> None:
        self._line = source_calls.Line()

    def tick(
        self, context: dg.SensorEvaluationContext, evaluate: Callable[[Context], dg.SensorResult]
    ) -> dg.SensorResult:
        """Return the result of a look, of this tick's or of an earlier one with its cursor; or that it goes on.

        Raises:
            Whatever the look raised.
        """
        own, began_s = OwnContext(context), time.perf_counter()

        def look() -> tuple[dg.SensorResult, list[logging.LogRecord], float]:
            try:
                return evaluate(own), own.lines, time.perf_counter() - began_s
            finally:
                own.close()

        try:
            result, lines, took_s = self._line.ask((context.cursor or "",), look, math.inf, WAIT_S)
        except source_calls.Unanswered as problem:
            reason = f"what this look asks, Dagster's database or the store, {problem}; a later tick takes its result"
            return dg.SensorResult(skip_reason=reason, cursor=context.cursor)
        # Where the database is slow, a tick's own log would wait for it too.
        log = context.log if lines and took_s < QUICK_S else logging.getLogger(__name__)
        for line in lines:
            log.handle(line)
        return result
