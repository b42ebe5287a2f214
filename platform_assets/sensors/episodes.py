"""Retry an episode's run until it succeeds, a bounded number of times.

The runs of an episode are found by the tags that every run of a sensor carries; they are counted in Dagster, because a
cursor may be lost. Dagster never launches the same run key twice, so every attempt has a run key of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import dagster as dg
import msgspec
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.sensors.ticks import ProductTick
from platform_assets.sensors.under_way import ACTIVE

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
VANISHED_S = 20.0
"""How long a requested run may be missing: Dagster resumes an interrupted tick by itself."""


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
        since_s: the moment since which nothing has been under way; None: something is, or will be.
    """

    action: Literal["launch", "wait", "done", "give_up"]
    attempt: int
    reason: str
    since_s: float | None = None


def next_step(
    tries: Sequence[Try], *, requested: int, since_s: float | None, now_s: float, most: int, pauses_s: Sequence[int]
) -> Step:
    """Decide what to do about an episode from its runs.

    Args:
        tries: the runs, in any order.
        requested: number of the attempt that was requested last, 0 for none; it may have left no run.
        since_s: of the previous step.
        now_s: the moment by the wall clock.
        most: number of attempts after which the episode is given up.
        pauses_s: to wait after the first, second ... failed attempt; the last value repeats, empty means 0.
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
    since_s = now_s if since_s is None else min(since_s, now_s)  # the clock may have been set back
    idle_s = now_s - since_s
    if newest is None or newest.attempt < last:
        if idle_s < VANISHED_S:
            progress = f"attempt {last} was requested and has no run yet"
            return Step(action="wait", attempt=last, reason=progress, since_s=since_s)
        progress = f"attempt {last} vanished"
    else:
        progress = f"attempt {last} ended with {newest.status.value.lower()} (run {newest.run_id})"
    if last >= most:
        reason = f"{progress}; no attempt is left (limit {most})"
        return Step(action="give_up", attempt=last, reason=reason, since_s=since_s)
    pause_s = pauses_s[min(last, len(pauses_s)) - 1] if pauses_s else 0.0
    if idle_s < pause_s:
        reason = f"{progress}; next attempt in {math.ceil(pause_s - idle_s)} s"
        return Step(action="wait", attempt=last, reason=reason, since_s=since_s)
    return Step(action="launch", attempt=last + 1, reason=f"{progress}; attempt {last + 1} of {most}")


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """What a sensor remembers of the episode whose run it launches, as a part of its state.

    Attributes:
        requested: number of the attempt that was requested last, 0 for none; it may have left no run.
        since_s: the moment since which nothing has been under way; None: something is, or will be.
        failing: the last episode whose run was given up, until another one succeeds, by the name in its alert's id.
    """

    requested: int = 0
    since_s: float | None = None
    failing: str = ""


R = TypeVar("R", bound=Retried)


def tries_of(tick: ProductTick, verb: str, episode: str) -> list[Try]:
    """Return all runs of a product's job that carry an episode's tag."""
    runs = tick.context.instance.get_runs(dg.RunsFilter(job_name=tick.job(verb), tags={naming.TAG_EPISODE: episode}))
    return [
        Try(run_id=run.run_id, attempt=int(run.tags.get(naming.TAG_ATTEMPT, "1")), status=run.status) for run in runs
    ]


def end_failing(tick: ProductTick, state: R, verb: str, episode: str) -> R:
    """End the alert of the episode that was given up if the newest run that has ended succeeded and is another one's.

    Args:
        episode: the tag of the runs of the one that was given up.
    """
    if not state.failing:
        return state
    ended = dg.RunsFilter(job_name=tick.job(verb), statuses=list(ENDED))
    for run in tick.context.instance.get_runs(ended, limit=1):
        if run.status is dg.DagsterRunStatus.SUCCESS and run.tags.get(naming.TAG_EPISODE) != episode:
            tick.end_alert(episode_id(verb, state.failing))
            return replace(state, failing="")
    return state


def give_up(tick: ProductTick, state: R, verb: str, failing: str, text: str, **details: object) -> R:
    """Raise the alert that an episode's run is given up; that of the one before is over."""
    details = {"job": tick.job(verb), **details}
    tick.raise_alert(Alert(id=episode_id(verb, failing), kind=Kind.GAVE_UP, text=text, details=details))
    if state.failing not in ("", failing):
        tick.end_alert(episode_id(verb, state.failing))
    return replace(state, failing=failing)


def tags(episode: str, attempt: int) -> dict[str, str]:
    """Return the tags that identify an episode's run."""
    return {naming.TAG_EPISODE: episode, naming.TAG_ATTEMPT: str(attempt)}
