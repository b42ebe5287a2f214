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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from platform_assets.serving.follow import Follower

LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


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
            "From a body's arrival to its answer, logging included.",
            registry=self._registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._rows = Counter("driftline_predictions", "Rows answered.", registry=self._registry)
        self._cpu = Counter("driftline_cpu_seconds", "CPU time of the workers.", registry=self._registry)
        self._resident = self._gauge("driftline_resident_bytes", "Resident memory of a worker.")
        self._model = self._gauge("driftline_model_info", "1 for the bundle a worker serves.", ["digest", "source"])
        self._release = self._gauge("driftline_release", "The number of the release a worker serves, 0 for none.")
        self._behind = self._gauge(
            "driftline_release_has_problem", "1 while a worker does not serve the newest release."
        )
        self._unlogged = self._gauge("driftline_log_has_problem", "1 while a worker's prediction log takes no record.")
        self._by_status: dict[int, Counter] = {}
        self._shown: Any = None
        self._cpu_s = 0.0
        self._process = psutil.Process()
        for place in () if folder is None else folder.glob(f"*_{os.getpid()}.db"):
            _fill(place)

    def count(self, status: int, rows: int, latency_s: float) -> None:
        """Count one answered request."""
        try:
            self._by_status[status].inc()
        except KeyError:
            self._by_status[status] = self._requests.labels(str(status))
            self._by_status[status].inc()
        self._latency.observe(latency_s)
        if rows:
            self._rows.inc(rows)

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
            return generate_latest(self._registry)
        for place in self._folder.glob("gauge_live*.db"):
            pid = int(place.stem.rsplit("_", 1)[1])
            if not psutil.pid_exists(pid):
                mark_process_dead(pid, str(self._folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))
        return generate_latest(registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] | list[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="liveall")


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
