"""Count what the service does, for Prometheus.

Bento's metrics are switched off: they do not see what a middleware answers.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from platform_assets.serving.run.event_loop import TICK_S, WINDOW_S, Highest

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


_COUNTERS = {
    "requests": ("Requests to /predict by HTTP status.", "status", "release"),
    "refused_requests": ("Requests to /predict refused because too many were under way.", "release"),
    "predictions": ("Rows answered.", "release"),
    "cpu_seconds": ("CPU time of the process.",),
    "model_swaps": ("Releases that went live after the start.",),
    "process_deaths": ("Processes of this service's folder that ended without closing.",),
    "invalid_answers": ("Requests to which the model gave no valid answer; they got 503.",),
    "http_requests": ("Requests by path and HTTP status.", "path", "status"),
    "shipping_cpu_seconds": ("CPU time of the process for shipping.",),
    "shipping_requests": ("Calls of the store for shipping.", "operation"),
}
_GAUGES = {
    "resident_bytes": (f"Highest resident memory of the process in the last {WINDOW_S:g} s.",),
    "model_info": ("1 for the bundle that is served.", "digest", "source"),
    "release": ("The number of the release that is served, 0 for none.",),
    "release_has_problem": ("1 while the newest release cannot be read, served or copied.",),
    "model_has_problem": ("1 while the model gives invalid answers, or after a process died soon after it took it.",),
    "event_loop_lag_seconds": (f"Longest wait for a turn of the loop in the last {WINDOW_S:g} s.",),
    "in_flight_requests": (
        f"Most concurrent requests to /predict in the last {WINDOW_S:g} s, plus connections not accepted yet.",
    ),
    "ready": ("1 while the service is ready.",),
    "log_has_problem": ("1 while the prediction log cannot be written.",),
    "log_unshipped_seconds": ("Age of the oldest answer that is not in the store.",),
    "log_unshipped_bytes": ("Answers that are not in the store.",),
    "shipping_has_problem": ("1 while the log cannot be shipped, or the clock is wrong.",),
    "clock_offset_seconds": ("By how much the store's clock is ahead of ours.",),
}
"""By name: the help text, and labels."""


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
        self._registry = registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"driftline_{name}", text, labels, registry=registry)
            for name, (text, *labels) in _COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"driftline_{name}", text, labels, registry=registry)
            for name, (text, *labels) in _GAUGES.items()
        }
        self._latency = Histogram(
            "driftline_request_seconds",
            "From the head of a request to /predict to the last byte of its answer, including refused requests.",
            ("release",),
            registry=registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._highest_lag, self._highest_in_flight, self._highest_resident = Highest(), Highest(), Highest()
        self._now_in_flight = self._peak = 0
        self._live_model: tuple[str, str] | None = None
        self._process = psutil.Process()
        self._by_release: dict[str, _Series] = {}
        self._adding = threading.Lock()
        self._live = self._of(None)
        # Counters begin at zero: Prometheus sees no increase in the first value of a series.
        pages = [(path, status) for path in PATHS - PREDICT for status in ("200", "405")]
        asked = [(path, status) for path in PREDICT for status in (*STATUSES, GONE)]
        for path, status in (*pages, *asked, ("/readyz", "503"), (OTHER, "404"), (UNREAD, "400")):
            self._counters["http_requests"].labels(path, status)

    def count_deaths(self, deaths: int) -> None:
        """Count processes that died before this one."""
        self._counters["process_deaths"].inc(deaths)

    def _of(self, live: Live | None) -> _Series:
        """Return the series of a live model's release, and forget those of an older one."""
        label = NO_RELEASE if live is None or live.release is None else str(live.release)
        if (series := self._by_release.get(label)) is not None:
            return series
        requests, latency = self._counters["requests"], self._latency
        refused, rows = self._counters["refused_requests"], self._counters["predictions"]
        with self._adding:
            numbers = sorted(int(name) for name in self._by_release if name.isdigit())
            if label.isdigit() and len(numbers) == RELEASES_MAX:
                if int(label) < numbers[0]:
                    label = OLDER
                else:
                    for metric in (refused, rows, latency):
                        metric.remove(str(numbers[0]))
                    for status in list(self._by_release.pop(str(numbers[0])).requests):
                        requests.remove(status, str(numbers[0]))
            if label not in self._by_release:
                series = _Series(label, refused.labels(label), rows.labels(label), latency.labels(label))
                series.requests = {status: requests.labels(status, label) for status in STATUSES}
                self._by_release[label] = series
            return self._by_release[label]

    def _requests_of(self, series: _Series, status: str) -> Counter:
        counter = series.requests.get(status)
        if counter is None:
            counter = series.requests[status] = self._counters["requests"].labels(status, series.label)
        return counter

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
        self._counters["http_requests"].labels(path if path in PATHS else OTHER, label).inc()
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
        self._counters["http_requests"].labels(UNREAD, "400").inc()

    def count_refused(self, path: str) -> None:
        """Count a request that was refused before it began, because too many were under way."""
        self._counters["http_requests"].labels(path if path in PATHS else OTHER, "503").inc()
        if path in PREDICT:
            self._requests_of(self._live, "503").inc()
            self._live.refused.inc()

    def note_lag(self, lag_s: float, waiting: int) -> None:
        """Publish how long the loop has made others wait, and how many requests were in flight meanwhile.

        Args:
            lag_s: the wait.
            waiting: connections not accepted yet: each brings a request.
        """
        self.turn_s = now_s = time.monotonic()
        peak, self._peak = self._peak, self._now_in_flight
        self._gauges["event_loop_lag_seconds"].set(self._highest_lag.add(now_s, lag_s))
        self._gauges["in_flight_requests"].set(self._highest_in_flight.add(now_s, peak + waiting))

    def note(self, follower: Follower, log_problem: str | None = None, *, is_ready: bool) -> None:
        """Publish readiness, what the follower serves, whether predictions are logged, and the use of the machine."""
        live, now_s = follower.live, time.monotonic()
        model = None if live is None else (live.model.digest, live.source)
        if self._live_model not in (None, model):  # a gauge keeps its last value, here 1
            self._gauges["model_info"].remove(*self._live_model)
        if model is not None:
            self._gauges["model_info"].labels(*model).set(1)
        self._live_model = model
        self._live = self._of(live)
        # A loop that hangs notes nothing by itself.
        if self.turn_s is not None and (hung_s := now_s - self.turn_s - TICK_S) > LAG_ALERT_S:
            self._gauges["event_loop_lag_seconds"].set(hung_s)
        self._set(
            ready=is_ready,
            release=0 if live is None or live.release is None else live.release,
            release_has_problem=follower.problem is not None,
            log_has_problem=log_problem is not None,
            resident_bytes=self._highest_resident.add(now_s, self._process.memory_info().rss),
        )
        self._raise("model_swaps", follower.swaps)
        self._raise("cpu_seconds", time.process_time())

    def note_faults(self, invalid: int, problem: str | None) -> None:
        """Publish the requests without a valid answer so far, and whether anything speaks against the model."""
        self._raise("invalid_answers", invalid)
        self._set(model_has_problem=problem is not None)

    def note_shipping(self, figures: Figures, problem: str | None) -> None:
        """Publish how shipping is doing."""
        self._set(
            log_unshipped_seconds=figures.unshipped_s,
            log_unshipped_bytes=figures.unshipped_bytes,
            shipping_has_problem=problem is not None,
            clock_offset_seconds=figures.clock_offset_s or 0.0,
        )
        self._raise("shipping_cpu_seconds", figures.cpu_s)
        for operation, count in figures.requests.items():
            self._raise("shipping_requests", count, operation)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            self._gauges[name].set(value)

    def _raise(self, name: str, total: float, *labels: str) -> None:
        """Raise a counter to a total that somebody else counts."""
        counter, before = self._counters[name], self._totals[name, *labels]
        (counter.labels(*labels) if labels else counter).inc(total - before)
        self._totals[name, *labels] = total
