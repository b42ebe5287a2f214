"""Count what the service does, for Prometheus: its own metrics, summed over its workers.

Bento's metrics are switched off: they do not see what a middleware answers. Each worker keeps its numbers in files of
one folder per server, so that any worker answers for all. Bento's own folder does not work: a second server with the
same home empties it when it starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter as Counted
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from platform_assets.serving import servers
from platform_assets.serving.tally import Distribution, Tally
from platform_assets.serving.vitals import WINDOW_S, Highest

if TYPE_CHECKING:
    from platform_assets.serving.follow import Follower
    from platform_assets.serving.shipping import Figures

LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PREDICT = frozenset(["/predict", "/api/predict"])
PATHS = PREDICT | {"/readyz", "/openapi.json", "/docs.json", "/schema.json", "/"}
READY, TURN = "driftline_ready", "driftline_event_loop_turn_timestamp_seconds"
MODEL_INFO = "driftline_model_info"
OTHER, UNREAD, GONE = "other", "unread", "gone"
"""Stand-ins: for a path that is not ours, for a request that could not be read, for the status when a caller left."""
LAG_ALERT_S = 0.1
"""Alert above this: a row waits for up to four turns of the loop, which stays below half a second until then."""
IN_FLIGHT_ALERT = 8
"""Alert above this: the costliest list takes some 60 ms of CPU, one at a time: 8 take half a second."""


class Metrics:
    """The metrics of one worker."""

    def __init__(self, folder: Path | None = None) -> None:
        """Create the metrics.

        Args:
            folder: of the server, shared by its workers; None keeps the numbers in this process only.
        """
        self._folder = folder
        self._registry = CollectorRegistry()
        self._requests = self._counter("driftline_requests", "Requests to /predict by HTTP status.", "status")
        self._latency = Distribution(
            Histogram(
                "driftline_request_seconds",
                "From the head of a request to /predict to the last byte of its answer, including refused requests.",
                registry=self._registry,
                buckets=LATENCY_BUCKETS_S,
            )
        )
        self._rows = Tally.of(self._counter("driftline_predictions", "Rows answered."))
        self._cpu = self._counter("driftline_cpu_seconds", "CPU time of the workers.")
        self._resident = self._gauge("driftline_resident_bytes", "Resident memory of a worker.")
        self._model = self._gauge(MODEL_INFO, "1 for the bundle a worker serves.", "digest", "source")
        self._release = self._gauge("driftline_release", "The number of the release a worker serves, 0 for none.")
        self._release_problem = self._gauge(
            "driftline_release_has_problem", "1 while a worker cannot read, serve or copy the newest release."
        )
        self._all = self._counter("driftline_http_requests", "Requests by path and HTTP status.", "path", "status")
        self._lag = self._gauge(
            "driftline_event_loop_lag_seconds", f"Longest wait for a turn of the loop in the last {WINDOW_S:g} s."
        )
        self._in_flight = self._gauge(
            "driftline_in_flight_requests",
            f"Most concurrent requests to /predict in the last {WINDOW_S:g} s, plus connections not accepted yet.",
        )
        self._turn = self._gauge(TURN, "When the loop of a worker had its last turn.")
        self._ready: Gauge | None = None
        self._highest_lag, self._highest_in_flight = Highest(), Highest()
        self._now_in_flight = self._peak = 0
        self._by_label: dict[tuple[str, ...], Tally] = {}
        self._unlogged = self._gauge(
            "driftline_log_has_problem", "1 while a worker's prediction log cannot be written."
        )
        self._add_those_of_shipping()
        self._live_model: Any = None
        self._cpu_s = 0.0
        self._process = psutil.Process()
        for path in () if folder is None else folder.glob(f"*_{os.getpid()}.db"):
            _fill(path)

    def _add_those_of_shipping(self) -> None:
        self._unshipped_s = self._gauge(
            "driftline_log_unshipped_seconds", "Age of the oldest answer of a worker that is not in the store."
        )
        self._unshipped = self._gauge("driftline_log_unshipped_bytes", "A worker's answers that are not in the store.")
        self._unsendable = self._gauge(
            "driftline_shipping_has_problem", "1 while a worker cannot ship its log, or its clock is wrong."
        )
        self._clock = self._gauge(
            "driftline_clock_offset_seconds", "By how much the store's clock is ahead of a worker's."
        )
        self._shipping_cpu = self._counter("driftline_shipping_cpu_seconds", "CPU time of the workers for shipping.")
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
        self._labelled(self._all, path if path in PATHS else OTHER, label).add()
        if path not in PREDICT:
            return
        self._now_in_flight -= 1
        if status is not None:
            self._labelled(self._requests, label).add()
            self._latency.observe(seconds)

    def count_rows(self, rows: int) -> None:
        """Count answered rows."""
        if rows:
            self._rows.add(rows)

    def count_unread(self) -> None:
        """Count a request that was not HTTP: the server itself answers it with 400."""
        self._labelled(self._all, UNREAD, "400").add()

    def count_refused(self, path: str) -> None:
        """Count a request that was refused before it began, because too many were under way."""
        self._labelled(self._all, path if path in PATHS else OTHER, "503").add()
        if path in PREDICT:
            self._labelled(self._requests, "503").add()

    def note_ready(self, *, is_ready: bool) -> None:
        """Publish whether this worker is ready. Before the first call it has not started, and does not count."""
        if self._ready is None:
            self._ready = self._gauge(READY, "1 while a worker is ready.")
            self._turn.set(time.time())
        self._ready.set(1 if is_ready else 0)

    def workers(self) -> dict[int, WorkerState]:
        """Return what the workers that have started published last, by process."""
        if self._folder is None:
            return {}
        files = {int(path.stem.rsplit("_", 1)[1]): path for path in self._folder.glob("gauge_live*.db")}
        states = {pid: _state(path) for pid, path in files.items() if _is_sibling(pid)}
        return {pid: state for pid, state in states.items() if state is not None}

    def note_lag(self, lag_s: float, waiting: int, had_turn: bool = True) -> None:
        """Publish how long the loop has made others wait, and how many requests were in flight meanwhile.

        Args:
            lag_s: the wait.
            waiting: connections not accepted yet: each brings a request.
            had_turn: whether the wait is over.
        """
        now_s = time.monotonic()
        if had_turn:
            self._turn.set(time.time())
        peak, self._peak = self._peak, self._now_in_flight
        self._lag.set(self._highest_lag.add(now_s, lag_s))
        self._in_flight.set(self._highest_in_flight.add(now_s, peak + waiting))

    def _labelled(self, counter: Counter, *labels: str) -> Tally:
        key = (counter._name, *labels)
        tally = self._by_label.get(key)
        if tally is None:
            tally = self._by_label[key] = Tally.of(counter.labels(*labels))
        return tally

    def note(self, follower: Follower, log_problem: str | None = None) -> None:
        """Publish what the follower serves, whether predictions are logged, and this worker's use of the machine."""
        live = follower.live
        model = None if live is None else self._model.labels(live.model.digest, live.source)
        if self._live_model is not None and self._live_model is not model:
            self._live_model.set(0)
        if model is not None:
            model.set(1)
        self._live_model = model
        self._release.set(0 if live is None or live.release is None else live.release)
        self._release_problem.set(1 if follower.problem is not None else 0)
        self._unlogged.set(1 if log_problem is not None else 0)
        self._resident.set(self._process.memory_info().rss)
        used_s = time.process_time()
        self._cpu.inc(used_s - self._cpu_s)
        self._cpu_s = used_s

    def note_shipping(self, figures: Figures, problem: str | None) -> None:
        """Publish how shipping is doing."""
        self._unshipped_s.set(figures.unshipped_s)
        self._unshipped.set(figures.unshipped_bytes)
        self._unsendable.set(1 if problem is not None else 0)
        self._clock.set(figures.clock_offset_s or 0.0)
        self._shipping_cpu.inc(figures.cpu_s - self._shipped_cpu_s)
        self._shipped_cpu_s = figures.cpu_s
        for operation, count in figures.requests.items():
            self._store_requests.labels(operation).inc(count - self._requested[operation])
        self._requested = Counted(figures.requests)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, of all workers if there is a folder."""
        if self._folder is None:
            return generate_latest(_LiveModels(self._registry))
        for path in self._folder.glob("gauge_live*.db"):
            pid = int(path.stem.rsplit("_", 1)[1])
            if not psutil.pid_exists(pid):
                mark_process_dead(pid, str(self._folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))
        return generate_latest(_LiveModels(registry))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="liveall")


@dataclass(frozen=True)
class WorkerState:
    """What a worker published: whether it is ready, and when its loop had its last turn."""

    is_ready: bool
    turn_at_s: float


def _state(path: Path) -> WorkerState | None:
    """Return what a worker's file says; None while it has not started, or if the file is gone."""
    try:
        values = {_metric_of(key): value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}
    except OSError:
        return None
    return WorkerState(values[READY] == 1, values[TURN]) if READY in values and TURN in values else None


def _metric_of(key: str) -> str:
    """Return the metric's name in a key of the files: `["name", "name", {}, "help"]`."""
    return key[2 : key.index('"', 2)]


def _is_sibling(pid: int) -> bool:
    """Tell whether a process is a worker of this server: another one may have got a dead worker's id."""
    try:
        return psutil.Process(pid).ppid() == os.getppid()
    except psutil.NoSuchProcess:
        return False


class _LiveModels(CollectorRegistry):
    """A registry without the bundles that are no longer served; a metrics file never drops any."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            if family.name == MODEL_INFO:
                family.samples = [sample for sample in family.samples if sample.value]
            yield family


def _fill(path: Path) -> None:
    """Allocate a file's pages now: a page first written on a full disk kills the process by SIGBUS."""
    with path.open("rb+") as file, contextlib.suppress(OSError):  # the disk is full already: nothing to gain
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def server_folder(base: Path) -> Path:
    """Return this server's metrics folder, named by the process that started the workers; remove those of dead servers.

    prometheus-client reads its folder from the environment only, so it is set there; `bentoml serve` has already made
    the client choose files over memory.
    """
    base.mkdir(parents=True, exist_ok=True)
    for other in base.iterdir():
        if not servers.is_running(other.name):
            shutil.rmtree(other, ignore_errors=True)
    folder = base / servers.name_of(os.getppid())
    folder.mkdir(exist_ok=True)
    mark_process_dead(os.getpid(), str(folder))  # gauges of an earlier worker with our id
    assert values.ValueClass is not values.MutexValue, "prometheus_client was imported without PROMETHEUS_MULTIPROC_DIR"
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder
