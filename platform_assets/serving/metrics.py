"""Count what the service does, for Prometheus.

Bento's metrics are switched off: they do not see what a middleware answers.
"""

from __future__ import annotations

import time
from collections import Counter as Counted
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from platform_assets.serving.vitals import WINDOW_S, Highest

if TYPE_CHECKING:
    from platform_assets.serving.follow import Follower
    from platform_assets.serving.shipping import Figures

LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PREDICT = frozenset(["/predict", "/api/predict"])
PATHS = PREDICT | {"/readyz", "/openapi.json", "/docs.json", "/schema.json", "/"}
OTHER, UNREAD, GONE = "other", "unread", "gone"
"""Stand-ins: for a path that is not ours, for a request that could not be read, for the status when a caller left."""
LAG_ALERT_S = 0.1
"""Alert above this: a row waits for up to four turns of the loop, which stays below half a second until then."""
IN_FLIGHT_ALERT = 8
"""Alert above this: the costliest list takes some 60 ms of CPU, one at a time: 8 take half a second."""


class Metrics:
    """The metrics of a product's service.

    Attributes:
        turn_s: `monotonic()` when the event loop had its last turn; None before the first.
    """

    def __init__(self) -> None:
        self.turn_s: float | None = None
        self._registry = CollectorRegistry()
        self._requests = self._counter("driftline_requests", "Requests to /predict by HTTP status.", "status")
        self._latency = Histogram(
            "driftline_request_seconds",
            "From the head of a request to /predict to the last byte of its answer, including refused requests.",
            registry=self._registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._rows = self._counter("driftline_predictions", "Rows answered.")
        self._cpu = self._counter("driftline_cpu_seconds", "CPU time of the process.")
        self._resident = self._gauge("driftline_resident_bytes", "Resident memory of the process.")
        self._model = self._gauge("driftline_model_info", "1 for the bundle that is served.", "digest", "source")
        self._release = self._gauge("driftline_release", "The number of the release that is served, 0 for none.")
        self._release_problem = self._gauge(
            "driftline_release_has_problem", "1 while the newest release cannot be read, served or copied."
        )
        self._all = self._counter("driftline_http_requests", "Requests by path and HTTP status.", "path", "status")
        self._lag = self._gauge(
            "driftline_event_loop_lag_seconds", f"Longest wait for a turn of the loop in the last {WINDOW_S:g} s."
        )
        self._in_flight = self._gauge(
            "driftline_in_flight_requests",
            f"Most concurrent requests to /predict in the last {WINDOW_S:g} s, plus connections not accepted yet.",
        )
        self._ready = self._gauge("driftline_ready", "1 while the service is ready.")
        self._highest_lag, self._highest_in_flight = Highest(), Highest()
        self._now_in_flight = self._peak = 0
        self._unlogged = self._gauge("driftline_log_has_problem", "1 while the prediction log cannot be written.")
        self._add_those_of_shipping()
        self._live_model: tuple[str, str] | None = None
        self._cpu_s = 0.0
        self._process = psutil.Process()

    def _add_those_of_shipping(self) -> None:
        self._unshipped_s = self._gauge(
            "driftline_log_unshipped_seconds", "Age of the oldest answer that is not in the store."
        )
        self._unshipped = self._gauge("driftline_log_unshipped_bytes", "Answers that are not in the store.")
        self._unsendable = self._gauge(
            "driftline_shipping_has_problem", "1 while the log cannot be shipped, or the clock is wrong."
        )
        self._clock = self._gauge("driftline_clock_offset_seconds", "By how much the store's clock is ahead of ours.")
        self._shipping_cpu = self._counter("driftline_shipping_cpu_seconds", "CPU time of the process for shipping.")
        self._store_requests = self._counter(
            "driftline_shipping_requests", "Calls of the store for shipping.", "operation"
        )
        self._shipped_cpu_s, self._requested = 0.0, Counted[str]()

    def begin(self, path: str) -> None:
        """Count a request that has started."""
        if path in PREDICT:
            self._now_in_flight += 1
            self._peak = max(self._peak, self._now_in_flight)

    def end(self, path: str, status: int | None, seconds: float) -> None:
        """Count a request that has ended.

        Args:
            path: as requested.
            status: of the answer; None if the caller left before there was one.
            seconds: from its head to the last byte of its answer.
        """
        label = GONE if status is None else str(status)
        self._all.labels(path if path in PATHS else OTHER, label).inc()
        if path not in PREDICT:
            return
        self._now_in_flight -= 1
        if status is not None:
            self._requests.labels(label).inc()
            self._latency.observe(seconds)

    def count_rows(self, rows: int) -> None:
        """Count answered rows."""
        self._rows.inc(rows)

    def count_unread(self) -> None:
        """Count a request that was not HTTP: the server itself answers it with 400."""
        self._all.labels(UNREAD, "400").inc()

    def count_refused(self, path: str) -> None:
        """Count a request that was refused before it began, because too many were under way."""
        self._all.labels(path if path in PATHS else OTHER, "503").inc()
        if path in PREDICT:
            self._requests.labels("503").inc()

    def note_lag(self, lag_s: float, waiting: int, had_turn: bool = True) -> None:
        """Publish how long the loop has made others wait, and how many requests were in flight meanwhile.

        Args:
            lag_s: the wait.
            waiting: connections not accepted yet: each brings a request.
            had_turn: whether the wait is over.
        """
        now_s = time.monotonic()
        if had_turn:
            self.turn_s = now_s
        peak, self._peak = self._peak, self._now_in_flight
        self._lag.set(self._highest_lag.add(now_s, lag_s))
        self._in_flight.set(self._highest_in_flight.add(now_s, peak + waiting))

    def note(self, follower: Follower, log_problem: str | None = None, *, is_ready: bool) -> None:
        """Publish readiness, what the follower serves, whether predictions are logged, and the use of the machine."""
        live = follower.live
        model = None if live is None else (live.model.digest, live.source)
        if self._live_model not in (None, model):
            self._model.remove(*self._live_model)
        if model is not None:
            self._model.labels(*model).set(1)
        self._live_model = model
        self._ready.set(is_ready)
        self._release.set(0 if live is None or live.release is None else live.release)
        self._release_problem.set(follower.problem is not None)
        self._unlogged.set(log_problem is not None)
        self._resident.set(self._process.memory_info().rss)
        used_s = time.process_time()
        self._cpu.inc(used_s - self._cpu_s)
        self._cpu_s = used_s

    def note_shipping(self, figures: Figures, problem: str | None) -> None:
        """Publish how shipping is doing."""
        self._unshipped_s.set(figures.unshipped_s)
        self._unshipped.set(figures.unshipped_bytes)
        self._unsendable.set(problem is not None)
        self._clock.set(figures.clock_offset_s or 0.0)
        self._shipping_cpu.inc(figures.cpu_s - self._shipped_cpu_s)
        self._shipped_cpu_s = figures.cpu_s
        for operation, count in figures.requests.items():
            self._store_requests.labels(operation).inc(count - self._requested[operation])
        self._requested = Counted(figures.requests)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)
