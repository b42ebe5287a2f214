"""Count what the service does, for Prometheus.

Bento's metrics are switched off: they do not see what a middleware answers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Counted
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from platform_assets.serving.run.event_loop import WINDOW_S, Highest

if TYPE_CHECKING:
    from platform_assets.serving.follow.follower import Follower, Live
    from platform_assets.serving.log.shipping import Figures

LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PREDICT = frozenset(["/predict", "/api/predict"])
PATHS = PREDICT | {"/readyz", "/openapi.json", "/docs.json", "/schema.json", "/"}
OTHER, UNREAD, GONE = "other", "unread", "gone"
"""Stand-ins: for a path that is not ours, for a request that could not be read, for the status when a caller left."""
STATUSES = ("200", "401", "405", "408", "413", "415", "422", "500", "503")
"""Of answers to /predict. Their counters begin at zero: Prometheus sees no increase in the first value of a series."""
RELEASES_MAX = 4
"""Releases with series of their own. Those of an older one are removed: added to others they would count twice."""
NO_RELEASE, OLDER = "none", "older"
"""Labels: for answers of no release, such as of the Bento's own model, and of one whose series were removed."""
LAG_ALERT_S = 0.1
"""Alert above this: a row waits for up to four turns of the loop, which stays below half a second until then."""
IN_FLIGHT_ALERT = 8
"""Alert above this: the costliest list takes some 60 ms of CPU, one at a time: 8 take half a second."""


@dataclass
class _Series:
    """The series of one release, with those of requests by status."""

    label: str
    refused: Counter
    rows: Counter
    latency: Histogram
    requests: dict[str, Counter] = field(default_factory=dict)


class Metrics:
    """The metrics of a product's service.

    Attributes:
        turn_s: `monotonic()` when the event loop had its last turn; None before the first.
    """

    def __init__(self) -> None:
        self.turn_s: float | None = None
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "driftline_requests", "Requests to /predict by HTTP status.", "status", "release"
        )
        self._refused = self._counter(
            "driftline_refused_requests", "Requests to /predict refused because too many were under way.", "release"
        )
        self._latency = Histogram(
            "driftline_request_seconds",
            "From the head of a request to /predict to the last byte of its answer, including refused requests.",
            ("release",),
            registry=self._registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._rows = self._counter("driftline_predictions", "Rows answered.", "release")
        self._cpu = self._counter("driftline_cpu_seconds", "CPU time of the process.")
        self._resident = self._gauge(
            "driftline_resident_bytes", f"Highest resident memory of the process in the last {WINDOW_S:g} s."
        )
        self._model = self._gauge("driftline_model_info", "1 for the bundle that is served.", "digest", "source")
        self._release = self._gauge("driftline_release", "The number of the release that is served, 0 for none.")
        self._release_problem = self._gauge(
            "driftline_release_has_problem", "1 while the newest release cannot be read, served or copied."
        )
        self._swaps = self._counter("driftline_model_swaps", "Releases that went live after the start.")
        self._deaths = self._counter(
            "driftline_process_deaths", "Processes of this service's folder that ended without closing."
        )
        self._swapped = 0
        self._invalid = self._counter(
            "driftline_invalid_answers", "Requests to which the model gave no valid answer; they got 503."
        )
        self._model_problem = self._gauge(
            "driftline_model_has_problem",
            "1 while the model gives invalid answers, or after a process died soon after it took it.",
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
        self._highest_lag, self._highest_in_flight, self._highest_resident = Highest(), Highest(), Highest()
        self._now_in_flight = self._peak = 0
        self._unlogged = self._gauge("driftline_log_has_problem", "1 while the prediction log cannot be written.")
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
        self._live_model: tuple[str, str] | None = None
        self._cpu_s, self._invalid_so_far = 0.0, 0
        self._process = psutil.Process()
        self._by_release: dict[str, _Series] = {}
        self._adding = threading.Lock()
        self._live = self._of(None)
        # Counters begin at zero: Prometheus sees no increase in the first value of a series.
        pages = [(path, status) for path in PATHS - PREDICT for status in ("200", "405")]
        asked = [(path, status) for path in PREDICT for status in (*STATUSES, GONE)]
        for path, status in (*pages, *asked, ("/readyz", "503"), (OTHER, "404"), (UNREAD, "400")):
            self._all.labels(path, status)

    def count_deaths(self, deaths: int) -> None:
        """Count processes that died before this one."""
        self._deaths.inc(deaths)

    def _of(self, live: Live | None) -> _Series:
        """Return the series of a live model's release."""
        label = NO_RELEASE if live is None or live.release is None else str(live.release)
        series = self._by_release.get(label)
        if series is not None:
            return series
        with self._adding:
            return self._add(label)

    def _add(self, label: str) -> _Series:
        numbers = sorted(int(name) for name in self._by_release if name.isdigit())
        if label.isdigit() and len(numbers) == RELEASES_MAX:
            if int(label) < numbers[0]:
                label = OLDER
            else:
                self._remove(str(numbers[0]))
        if label not in self._by_release:
            series = _Series(label, self._refused.labels(label), self._rows.labels(label), self._latency.labels(label))
            series.requests = {status: self._requests.labels(status, label) for status in STATUSES}
            self._by_release[label] = series
        return self._by_release[label]

    def _requests_of(self, series: _Series, status: str) -> Counter:
        counter = series.requests.get(status)
        if counter is None:
            counter = series.requests[status] = self._requests.labels(status, series.label)
        return counter

    def _remove(self, label: str) -> None:
        series = self._by_release.pop(label)
        for metric in (self._refused, self._rows, self._latency):
            metric.remove(label)
        for status in list(series.requests):
            self._requests.remove(status, label)

    def begin(self, path: str) -> None:
        """Count a request that has started."""
        if path in PREDICT:
            self._now_in_flight += 1
            self._peak = max(self._peak, self._now_in_flight)

    def end(self, path: str, status: int | None, seconds: float, live: Live | None) -> None:
        """Count a request that has ended.

        Args:
            path: as requested.
            status: of the answer; None if the caller left before there was one.
            seconds: from its head to the last byte of its answer.
            live: what answered it, or was live when it was refused.
        """
        label = GONE if status is None else str(status)
        self._all.labels(path if path in PATHS else OTHER, label).inc()
        if path not in PREDICT:
            return
        self._now_in_flight -= 1
        if status is not None:
            series = self._of(live)
            self._requests_of(series, label).inc()
            series.latency.observe(seconds)

    def count_rows(self, rows: int, live: Live | None) -> None:
        """Count rows that a model answered."""
        self._of(live).rows.inc(rows)

    def count_unread(self) -> None:
        """Count a request that was not HTTP: the server itself answers it with 400."""
        self._all.labels(UNREAD, "400").inc()

    def count_refused(self, path: str) -> None:
        """Count a request that was refused before it began, because too many were under way."""
        self._all.labels(path if path in PATHS else OTHER, "503").inc()
        if path in PREDICT:
            self._requests_of(self._live, "503").inc()
            self._live.refused.inc()

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
        self._live = self._of(live)
        self._swaps.inc(follower.swaps - self._swapped)
        self._swapped = follower.swaps
        self._ready.set(is_ready)
        self._release.set(0 if live is None or live.release is None else live.release)
        self._release_problem.set(follower.problem is not None)
        self._unlogged.set(log_problem is not None)
        self._resident.set(self._highest_resident.add(time.monotonic(), self._process.memory_info().rss))
        used_s = time.process_time()
        self._cpu.inc(used_s - self._cpu_s)
        self._cpu_s = used_s

    def note_faults(self, invalid: int, problem: str | None) -> None:
        """Publish the requests without a valid answer so far, and whether anything speaks against the model."""
        self._invalid.inc(invalid - self._invalid_so_far)
        self._invalid_so_far = invalid
        self._model_problem.set(problem is not None)

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
