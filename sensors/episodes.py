"""Try an episode's run until it succeeds, a bounded number of times.

Belongs here: which runs an episode had, by the tags that every run of a sensor carries, and whether to launch the next
one. Does not belong here: what makes an episode. A run key deduplicates for ever, so each attempt has its own; how many
there were is read from the runs, for a cursor may be lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import dagster as dg

from platform_assets import naming

LAUNCHED = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
"""A run with one of these has left the queue and has not ended: one that is being cancelled still has its process."""
ACTIVE = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *LAUNCHED)
"""A run with one of these is under way, or will be."""

VANISHED_TICKS = 4
"""For how many ticks a run that was asked for may be missing: Dagster resumes an interrupted tick by itself."""


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
        do: `launch` the attempt, `wait`, or the end: `done` or `give_up`.
        attempt: the number of the attempt that is launched or was the last.
        reason: one clause.
        ticks: for how many ticks nothing has been under way, this one included.
    """

    do: Literal["launch", "wait", "done", "give_up"]
    attempt: int
    reason: str
    ticks: int = 0


def next_step(tries: Sequence[Try], *, asked: int, ticks: int, most: int, pauses: Sequence[int] = ()) -> Step:
    """Say what to do about an episode, from the runs it had.

    Args:
        tries: its runs, in any order.
        asked: the number of the attempt that was last asked for, 0 for none; it may have left no run.
        ticks: the `ticks` of the step before.
        most: after so many attempts it is given up.
        pauses: how many ticks to wait after the first, second ... attempt has failed; the last holds on, none is 0.
    """
    newest = max(tries, key=lambda item: item.attempt, default=None)
    if any(item.status is dg.DagsterRunStatus.SUCCESS for item in tries):
        return Step(do="done", attempt=max(item.attempt for item in tries), reason="succeeded")
    for item in tries:
        if item.status in ACTIVE:
            told = f"attempt {item.attempt} is {item.status.value.lower()} (run {item.run_id})"
            return Step(do="wait", attempt=item.attempt, reason=told)
    last = max(asked, newest.attempt if newest else 0)
    if last == 0:
        return Step(do="launch", attempt=1, reason="attempt 1")
    if newest is None or newest.attempt < last:
        if ticks < VANISHED_TICKS:
            told = f"attempt {last} was asked for and has no run yet"
            return Step(do="wait", attempt=last, reason=told, ticks=ticks + 1)
        told = f"attempt {last} vanished"
    else:
        told = f"attempt {last} ended as {newest.status.value.lower()} (run {newest.run_id})"
    if last >= most:
        return Step(do="give_up", attempt=last, reason=f"{told}; {most} attempts are all there are", ticks=ticks)
    pause = pauses[min(last, len(pauses)) - 1] if pauses else 0
    if ticks < pause:
        return Step(do="wait", attempt=last, reason=f"{told}; the next in {pause - ticks} ticks", ticks=ticks + 1)
    return Step(do="launch", attempt=last + 1, reason=f"{told}; attempt {last + 1} of {most}")


def tries_of(instance: dg.DagsterInstance, job: str, episode: str) -> list[Try]:
    """Return all runs of a job that carry an episode's tag."""
    found = instance.get_runs(dg.RunsFilter(job_name=job, tags={naming.TAG_EPISODE: episode}))
    return [
        Try(run_id=run.run_id, attempt=int(run.tags.get(naming.TAG_ATTEMPT, "1")), status=run.status) for run in found
    ]


def without_success(tries: Sequence[Try]) -> list[Try]:
    """Return the tries with failure in place of success, for an episode whose success must show elsewhere."""
    failed = dg.DagsterRunStatus.FAILURE
    return [replace(item, status=failed) if item.status is dg.DagsterRunStatus.SUCCESS else item for item in tries]


def under_way(instance: dg.DagsterInstance, jobs: Sequence[str]) -> dg.DagsterRun | None:
    """Return a run of one of the jobs that is under way or will be, or None. Costs one query per job."""
    for job in jobs:
        # The database filters by job: the newest runs of the whole instance may all belong to others.
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(ACTIVE)), limit=1):
            return run
    return None


def tags(episode: str, attempt: int) -> dict[str, str]:
    """Return the tags by which an episode's run is found again."""
    return {naming.TAG_EPISODE: episode, naming.TAG_ATTEMPT: str(attempt)}
