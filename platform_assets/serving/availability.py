"""Report how a service has answered since it started, from its workers' metrics files, even after it has ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from platform_assets.serving import servers

REQUESTS = "driftline_requests_total"


@dataclass(frozen=True, kw_only=True)
class Availability:
    """How a service has answered.

    Attributes:
        is_up: whether its server's process is alive.
        since_utc: when the process started; for one that ended, the time of its first file.
        answered: requests with an answer (2xx).
        refused: requests whose values or form the contract does not allow (4xx).
        failed: requests that a healthy service would have answered (5xx).
    """

    is_up: bool
    since_utc: datetime
    answered: int
    refused: int
    failed: int

    @property
    def share(self) -> float | None:
        """The share of requests that were answered or correctly refused; None before the first."""
        total = self.answered + self.refused + self.failed
        return None if total == 0 else 1 - self.failed / total


def read(folder: Path) -> Availability | None:
    """Return how the newest server with metrics below `folder` has answered, or None if there is none.

    When another server starts, the folders of servers that have ended are removed, so at most the last one is there.

    Args:
        folder: of one product: `Settings.serving_metrics / product`.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    folders = {path: servers.pid_of(path.name) for path in folder.iterdir()} if folder.is_dir() else {}
    pids = {path: pid for path, pid in folders.items() if pid is not None}
    if not pids:
        return None
    newest = max(pids, key=lambda path: (servers.is_running(path.name), path.stat().st_mtime))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(newest))
    counted: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == REQUESTS:
                counted[sample.labels["status"][:1]] += int(sample.value)
    try:
        started_s = psutil.Process(pids[newest]).create_time()
        is_up = True
    except psutil.NoSuchProcess:
        files = [path.stat().st_mtime for path in newest.iterdir()]
        started_s, is_up = min(files, default=newest.stat().st_mtime), False
    return Availability(
        is_up=is_up,
        since_utc=datetime.fromtimestamp(started_s, UTC),
        answered=counted["2"],
        refused=counted["4"],
        failed=counted["5"],
    )
