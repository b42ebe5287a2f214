"""Count what the service does, for Prometheus.

Belongs here: the service's own metrics, summed over its workers. Does not belong here: Bento's (switched off: they
do not see what a middleware answers), or quality of predictions.

Each worker keeps its numbers in files of one folder a server, so that any worker answers for all. Bento's own
folder will not do: a second server with the same home empties it when it starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from platform_assets.serving.vitals import WINDOW_S, Highest

if TYPE_CHECKING:
    from platform_assets.serving.follow import Follower

LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PREDICT = "/predict"
PATHS = frozenset([PREDICT, "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs.json", "/"])
MODEL_INFO = "driftline_model_info"
OTHER, UNREAD, GONE = "other", "unread", "gone"
"""In place of a path that is none of ours, of one that nobody could read, and of the status where a caller left."""
LAG_ALERT_S = 0.1
"""Above it call somebody: a row waits for up to four turns of the loop, which stays below half a second until then."""
IN_FLIGHT_ALERT = 8
"""Above it call somebody: the costliest list takes some 60 ms of CPU, one at a time: 8 make half a second."""


class Metrics:
    """The metrics of one worker."""

    def __init__(self, folder: Path | None = None) -> None:
        """Make the metrics.

        Args:
            folder: of the server, shared by its workers; None keeps the numbers in this process alone.
        """
        self._folder = folder
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "driftline_requests", "Requests to /predict by HTTP status.", ["status"], registry=self._registry
        )
        self._latency = Histogram(
            "driftline_request_seconds",
            "From the head of a request to /predict to the last byte of its answer, refused ones included.",
            registry=self._registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._rows = Counter("driftline_predictions", "Rows answered.", registry=self._registry)
        self._cpu = Counter("driftline_cpu_seconds", "CPU time of the workers.", registry=self._registry)
        self._resident = self._gauge("driftline_resident_bytes", "Resident memory of a worker.")
        self._model = self._gauge(MODEL_INFO, "1 for the bundle a worker serves.", ["digest", "source"])
        self._release = self._gauge("driftline_release", "The number of the release a worker serves, 0 for none.")
        self._behind = self._gauge(
            "driftline_release_has_problem", "1 while a worker does not serve the newest release."
        )
        self._all = Counter(
            "driftline_http_requests", "Requests by path and HTTP status.", ["path", "status"], registry=self._registry
        )
        self._lag = self._gauge(
            "driftline_event_loop_lag_seconds", f"The longest wait for a turn of the loop in the last {WINDOW_S:g} s."
        )
        self._in_flight = self._gauge(
            "driftline_in_flight_requests",
            f"The most requests to /predict at a time in the last {WINDOW_S:g} s, and connections not accepted yet.",
        )
        self._highest_lag, self._highest_in_flight = Highest(), Highest()
        self._now_in_flight = self._peak = 0
        self._by_label: dict[tuple[str, ...], Counter] = {}
        self._unlogged = self._gauge("driftline_log_has_problem", "1 while a worker's prediction log takes no record.")
        self._shown: Any = None
        self._cpu_s = 0.0
        self._process = psutil.Process()
        for place in () if folder is None else folder.glob(f"*_{os.getpid()}.db"):
            _fill(place)

    def begin(self, path: str) -> None:
        """Note that a request has come."""
        if path == PREDICT:
            self._now_in_flight += 1
            self._peak = max(self._peak, self._now_in_flight)

    def end(self, path: str, status: int | None, seconds: float) -> None:
        """Count a request that is over.

        Args:
            path: as asked for.
            status: of the answer; None when its caller left before there was one.
            seconds: from its head to the last byte of its answer.
        """
        shown = GONE if status is None else str(status)
        self._labelled(self._all, path if path in PATHS else OTHER, shown).inc()
        if path != PREDICT:
            return
        self._now_in_flight -= 1
        if status is not None:
            self._labelled(self._requests, shown).inc()
            self._latency.observe(seconds)

    def count_rows(self, rows: int) -> None:
        """Count answered rows."""
        if rows:
            self._rows.inc(rows)

    def count_unread(self) -> None:
        """Count a request that was no HTTP: the server itself answers it with 400."""
        self._labelled(self._all, UNREAD, "400").inc()

    def note_lag(self, lag_s: float, waiting: int) -> None:
        """Show for how long the loop has let others wait, and how many requests were in flight meanwhile.

        Args:
            lag_s: the wait.
            waiting: connections that nobody has accepted yet: each brings a request.
        """
        now_s = time.monotonic()
        peak, self._peak = self._peak, self._now_in_flight
        self._lag.set(self._highest_lag.add(now_s, lag_s))
        self._in_flight.set(self._highest_in_flight.add(now_s, peak + waiting))

    def _labelled(self, counter: Counter, *labels: str) -> Counter:
        key = (counter._name, *labels)
        found = self._by_label.get(key)
        if found is None:
            found = self._by_label[key] = counter.labels(*labels)
        return found

    def note(self, follower: Follower, log_problem: str | None = None) -> None:
        """Show what the follower serves, whether predictions are logged, and this worker's use of the machine."""
        live = follower.live
        shown = None if live is None else self._model.labels(live.model.digest, live.source)
        if self._shown is not None and self._shown is not shown:
            self._shown.set(0)
        if shown is not None:
            shown.set(1)
        self._shown = shown
        self._release.set(0 if live is None or live.release is None else live.release)
        self._behind.set(1 if follower.problem is not None else 0)
        self._unlogged.set(1 if log_problem is not None else 0)
        self._resident.set(self._process.memory_info().rss)
        used_s = time.process_time()
        self._cpu.inc(used_s - self._cpu_s)
        self._cpu_s = used_s

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, of every worker when there is a folder."""
        if self._folder is None:
            return generate_latest(_Served(self._registry))
        for place in self._folder.glob("gauge_live*.db"):
            pid = int(place.stem.rsplit("_", 1)[1])
            if not psutil.pid_exists(pid):
                mark_process_dead(pid, str(self._folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))
        return generate_latest(_Served(registry))

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] | list[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="liveall")


class _Served(CollectorRegistry):
    """A registry as it is shown: of the bundles, those that are being served; a file of metrics forgets none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._shown = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._shown.collect():
            if family.name == MODEL_INFO:
                family.samples = [sample for sample in family.samples if sample.value]
            yield family


def _fill(place: Path) -> None:
    """Take a file's room on the disk now: a page that is first written on a full disk kills the process by SIGBUS."""
    with place.open("rb+") as file, contextlib.suppress(OSError):  # full already: then as before
        os.posix_fallocate(file.fileno(), 0, place.stat().st_size)


def server_folder(base: Path) -> Path:
    """Return this server's metrics folder, named by the process that started the workers, and remove dead servers'.

    prometheus-client finds its folder in the environment only, so it is put there; `bentoml serve` has made the
    client choose files over memory already.
    """
    base.mkdir(parents=True, exist_ok=True)
    for other in base.iterdir():
        if other.name.isdigit() and not psutil.pid_exists(int(other.name)):
            shutil.rmtree(other, ignore_errors=True)
    folder = base / str(os.getppid())
    folder.mkdir(exist_ok=True)
    assert values.ValueClass is not values.MutexValue, "prometheus_client was imported without PROMETHEUS_MULTIPROC_DIR"
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder
