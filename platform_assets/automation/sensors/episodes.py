"""Retry an episode's run until it succeeds, a bounded number of times.

The runs of an episode are found by the tags that every run of a sensor carries; they are counted in Dagster, because a
cursor may be lost. Dagster never launches the same run key twice, so every attempt has a run key of its own.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.wording import counted

LAUNCHED = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
"""A run with one of these has left the queue and has not ended: one that is being cancelled still has its process."""
ACTIVE = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *LAUNCHED)
"""A run with one of these is under way, or will be."""
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

MOST_READ, FRESH_S = 100, 1.0
"""How many runs are read at once, and for how long what was read is believed."""
VANISHED_TICKS = 4
"""Ticks for which a requested run may be missing: Dagster resumes an interrupted tick by itself."""


@dataclass(frozen=True, kw_only=True)
class Try:
    """One run of an episode."""

    run_id: str
    attempt: int
    status: dg.DagsterRunStatus


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do about an episode.

    Attributes:
        action: `launch` the attempt, `wait`, or end the episode: `done` or `give_up`.
        attempt: number of the attempt that is launched, or of the last one.
        reason: one clause.
        ticks: for how many ticks nothing has been under way, this one included.
    """

    action: Literal["launch", "wait", "done", "give_up"]
    attempt: int
    reason: str
    ticks: int = 0


def next_step(tries: Sequence[Try], *, requested: int, ticks: int, most: int, pauses: Sequence[int] = ()) -> Step:
    """Decide what to do about an episode from its runs.

    Args:
        tries: the runs, in any order.
        requested: number of the attempt that was requested last, 0 for none; it may have left no run.
        ticks: `ticks` of the previous step.
        most: number of attempts after which the episode is given up.
        pauses: ticks to wait after the first, second ... failed attempt; the last value repeats, empty means 0.
    """
    newest = max(tries, key=lambda item: item.attempt, default=None)
    if any(item.status is dg.DagsterRunStatus.SUCCESS for item in tries):
        return Step(action="done", attempt=max(item.attempt for item in tries), reason="succeeded")
    for item in tries:
        if item.status in ACTIVE:
            progress = f"attempt {item.attempt} is {item.status.value.lower()} (run {item.run_id})"
            return Step(action="wait", attempt=item.attempt, reason=progress)
    last = max(requested, newest.attempt if newest else 0)
    if last == 0:
        return Step(action="launch", attempt=1, reason="attempt 1")
    if newest is None or newest.attempt < last:
        if ticks < VANISHED_TICKS:
            progress = f"attempt {last} was requested and has no run yet"
            return Step(action="wait", attempt=last, reason=progress, ticks=ticks + 1)
        progress = f"attempt {last} vanished"
    else:
        progress = f"attempt {last} ended with {newest.status.value.lower()} (run {newest.run_id})"
    if last >= most:
        return Step(
            action="give_up", attempt=last, reason=f"{progress}; no attempt is left (limit {most})", ticks=ticks
        )
    pause = pauses[min(last, len(pauses)) - 1] if pauses else 0
    if ticks < pause:
        reason = f"{progress}; next attempt in {counted(pause - ticks, 'tick')}"
        return Step(action="wait", attempt=last, reason=reason, ticks=ticks + 1)
    return Step(action="launch", attempt=last + 1, reason=f"{progress}; attempt {last + 1} of {most}")


def tries_of(instance: dg.DagsterInstance, job: str, episode: str) -> list[Try]:
    """Return all runs of a job that carry an episode's tag."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, tags={naming.TAG_EPISODE: episode}))
    return [
        Try(run_id=run.run_id, attempt=int(run.tags.get(naming.TAG_ATTEMPT, "1")), status=run.status) for run in runs
    ]


def is_succeeded(instance: dg.DagsterInstance, job: str, given_up: str) -> bool:
    """Tell whether the newest run of a job that has ended succeeded and is of another episode than one given up."""
    ended = dg.RunsFilter(job_name=job, statuses=list(ENDED))
    return any(
        run.status is dg.DagsterRunStatus.SUCCESS and run.tags.get(naming.TAG_EPISODE) != given_up
        for run in instance.get_runs(ended, limit=1)
    )


def under_way(instance: dg.DagsterInstance, jobs: Sequence[str]) -> dg.DagsterRun | None:
    """Return a run of one of the jobs that is under way or will be, or None. Costs one query per job."""
    for job in jobs:
        # Filtered by job in the database: the newest runs of the whole instance may all belong to other jobs.
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(ACTIVE)), limit=1):
            return run
    return None


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
        return newest if newest is not None or self._are_all else under_way(self._instance(), jobs)


def tags(episode: str, attempt: int) -> dict[str, str]:
    """Return the tags that identify an episode's run."""
    return {naming.TAG_EPISODE: episode, naming.TAG_ATTEMPT: str(attempt)}
