"""Collect metrics by parts, none of which can keep a scrape waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PATIENCE_S = 5.0
"""How long a scrape waits for all parts together; Prometheus gives up after 10 s by default."""
OLDEST_S = 120.0
"""Numbers of a part that does not answer are left out when they are older: absent, not wrong."""

Collect = Callable[[], Sequence[Metric]]


@dataclass
class _Part:
    """One part with what it read last.

    Attributes:
        name: for the log.
        every_s: it is read no more often.
        read_at_s: of `time.monotonic`, when the last good reading ended; None before.
    """

    name: str
    collect: Collect
    every_s: float
    metrics: Sequence[Metric] = ()
    read_at_s: float | None = None
    duration_s: float = 0.0
    failures: int = 0
    is_up: bool = False
    said: str = ""
    thread: threading.Thread | None = field(default=None)

    def begin(self) -> None:
        """Start a reading, unless one is under way or the last is young enough."""
        is_young = self.read_at_s is not None and time.monotonic() - self.read_at_s < self.every_s
        if (self.thread is None or not self.thread.is_alive()) and not (self.is_up and is_young):
            self.thread = threading.Thread(target=self._read, daemon=True)
            self.thread.start()

    def _read(self) -> None:
        began_s = time.monotonic()
        try:
            self.metrics = self.collect()
        except Exception as problem:  # noqa: BLE001 - whatever a part raises, the others are served
            self.failures, self.is_up = self.failures + 1, False
            first = next(iter(f"{problem}".splitlines()), "")
            self.say(f"cannot be read: {type(problem).__name__}: {first}")
        else:
            self.said = ""
            self.read_at_s, self.is_up = time.monotonic(), True
        finally:
            self.duration_s = time.monotonic() - began_s

    def say(self, problem: str) -> None:
        """Log a problem once, until a reading succeeds."""
        if problem != self.said:
            self.said = problem
            logging.getLogger(__name__).warning("%s %s", self.name, problem)


class Parts(Collector):
    """All parts, as a registry collects them."""

    def __init__(
        self,
        parts: Mapping[str, Callable[[], Any]],
        every_s: Mapping[str, float] | None = None,
        patience_s: float | None = None,
    ) -> None:
        """Prepare the parts without reading anything.

        Args:
            parts: by name, for the label `part`.
            every_s: the least seconds between two readings of a part; 0 by default.
            patience_s: how long a scrape waits for a part; None for `PATIENCE_S`.
        """
        self._patience_s = patience_s
        self._parts = {name: _Part(name, collect, (every_s or {}).get(name, 0.0)) for name, collect in parts.items()}

    def describe(self) -> Sequence[Metric]:
        """Return nothing, so that registering reads nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each part's numbers, and how reading it went."""
        until_s = time.monotonic() + (PATIENCE_S if self._patience_s is None else self._patience_s)
        for part in self._parts.values():
            part.begin()
        for part in self._parts.values():
            if part.thread is not None:
                part.thread.join(max(0.0, until_s - time.monotonic()))
                if part.thread.is_alive():
                    part.say(f"has not answered within {PATIENCE_S:g} s; what was read before is served until it does")
        up = GaugeMetricFamily("driftline_exporter_part_up", "1 while a part's numbers are current.", labels=["part"])
        last = "How long a part's last reading took."
        took = GaugeMetricFamily("driftline_exporter_read_duration_seconds", last, labels=["part"])
        lost = "Readings of a part that failed."
        failed = CounterMetricFamily("driftline_exporter_read_failures", lost, labels=["part"])
        for name, part in self._parts.items():
            is_current = part.read_at_s is not None and time.monotonic() - part.read_at_s < part.every_s + OLDEST_S
            up.add_metric([name], float(part.is_up and is_current))
            took.add_metric([name], part.duration_s)
            failed.add_metric([name], part.failures)
            if is_current:
                yield from part.metrics
        yield from (up, took, failed)
