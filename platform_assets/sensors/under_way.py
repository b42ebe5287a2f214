"""Know which runs are under way, read once for many products."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import dagster as dg

LAUNCHED = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
"""A run with one of these has left the queue and has not ended: one that is being cancelled still has its process."""
ACTIVE = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *LAUNCHED)
"""A run with one of these is under way, or will be."""
MOST_READ, FRESH_S = 100, 1.0
"""How many runs are read at once, and for how long what was read is believed."""


class UnderWay:
    """Runs that are under way or will be, of all jobs: read once for many products, and again when a second old.

    A query costs 10 ms of CPU, and a look at 50 products would make 150 of them.
    """

    def __init__(self, instance: Callable[[], dg.DagsterInstance]) -> None:
        """Prepare; nothing is read, nor is the instance asked for, before the first question."""
        self._instance = instance
        self._newest: Mapping[str, dg.DagsterRun] = {}
        self._are_all, self._read_at_s = False, -math.inf

    def newest_of(self, jobs: Sequence[str]) -> dg.DagsterRun | None:
        """Return a run of one of the jobs, or None."""
        if time.monotonic() - self._read_at_s > FRESH_S:
            runs = self._instance().get_runs(dg.RunsFilter(statuses=list(ACTIVE)), limit=MOST_READ)
            self._newest = {run.job_name: run for run in runs}
            self._are_all, self._read_at_s = len(runs) < MOST_READ, time.monotonic()
        newest = next((self._newest[job] for job in jobs if job in self._newest), None)
        if newest is not None or self._are_all:
            return newest
        for job in jobs:
            # Filtered by job in the database: the newest runs of the whole instance may all belong to other jobs.
            for run in self._instance().get_runs(dg.RunsFilter(job_name=job, statuses=list(ACTIVE)), limit=1):
                return run
        return None
