"""Say how a try at a step ended, and what that means for the next one.

Belongs here: what follows from an ending; pure. Does not belong here: the classes of failure and
their budgets (`platform_assets/failures.py`), what shows a class (`pods.py`, `local.py`), or starting anything
(`tries.py`).

Losses of spot nodes have a budget of their own: they use up no try of any other kind, and the last one goes on demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from platform_assets import failures, naming
from platform_assets.failures import LOST, Budget, Failure
from platform_assets.profiles import StepProfile, profile

LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a try is for: it names the ledger records, and finds a try that is under way.

    Attributes:
        step: `train`, `export` or `backtest`.
        fingerprint: equal means same result; hexadecimal.
        ledger: which attempts ledger tells of it.
    """

    product: str
    step: str
    cutoff: str
    fingerprint: str
    ledger: str = naming.ATTEMPTS


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a try at a step ended.

    Attributes:
        failure: its class; None: it finished.
        said: the evidence in one sentence, as the place where the step ran showed it, without a full stop.
        exit_code: of the step's process; negative for a signal; None when it never had one or nobody saw it.
        asked_at: when that place was asked for it, by its clock; None: the same clock asked.
        started_at, ended_at: of the step's process by that place's clock; None when it never ran, or nobody saw it.
        is_final: trying again is of no use, whatever the class's budget: a forbidden namespace, an invalid manifest.
    """

    failure: Failure | None
    said: str
    exit_code: int | None = None
    asked_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_final: bool = False


@dataclass(frozen=True, kw_only=True)
class Try:
    """How to try: the size, and the memory where it is not the size's own.

    Attributes:
        memory_gb: in 10^9 bytes.
        pause_s: how long to wait before.
        why: for the run's log; empty for a first try.
    """

    profile: StepProfile
    memory_gb: float
    pause_s: float = 0.0
    why: str = ""


def first_try(size: StepProfile) -> Try:
    """Return how to try first."""
    return Try(profile=size, memory_gb=size.memory_gb)


def of_exit(exit_code: int, what: str, *, killed: str) -> tuple[Failure | None, str]:
    """Return what the exit code of a process that has run means, and the evidence.

    Args:
        exit_code: negative, or above 128, for a signal.
        what: the process or its container.
        killed: what is known of a SIGKILL.
    """
    if exit_code == 0:
        return None, "it finished"
    failure = failures.of_signal(exit_code)
    if failure is None or failure.signal is None:
        return failures.CODE, "its process ended by itself"
    said = f"{what} got {failure.signal.name}"
    return failure, f"{said}, {killed}" if failure is failures.KILLED else said


def next_try(
    past: Sequence[tuple[Try, Ending]], *, lost: Budget = LOST, longest_pause_s: float = LONGEST_PAUSE_S
) -> Try | None:
    """Return how to try after the tries so far, the newest last; None when another one is of no use.

    Args:
        past: each try and how it ended.
        lost: of losses on spot nodes, and again of losses on others.
        longest_pause_s: between two tries.
    """
    last, ending = past[-1]
    failure = ending.failure
    if failure is None or ending.is_final:
        return None
    on_demand = _on_demand(last)
    if failure.is_loss:
        count = sum(
            each.failure is not None and each.failure.is_loss and tried.profile.is_spot == last.profile.is_spot
            for tried, each in past
        )
        if on_demand is not None and count >= lost.tries:
            return replace(last, profile=on_demand, pause_s=0.0, why=f"lost {count} times on spot nodes: on demand")
        return _again(last, lost, count, "after a loss", longest_pause_s)
    if failure.needs_on_demand and on_demand is not None:
        return replace(last, profile=on_demand, pause_s=0.0, why="no spot node was to be had: on demand")
    count = sum(each.failure is failure for _, each in past)
    again = _again(last, failure.budget, count, "for this reason", longest_pause_s)
    if again is None or not failure.needs_memory:
        return again
    larger_gb = last.profile.larger_memory_gb or 2 * last.memory_gb
    return replace(again, memory_gb=larger_gb, why=f"with {larger_gb:g} GB of memory instead of {last.memory_gb:g}")


def _again(last: Try, budget: Budget, before: int, why: str, longest_pause_s: float) -> Try | None:
    """Return the same try after a pause, or None when the budget is used up by `before` endings."""
    if before > budget.tries:
        return None
    pause_s = min(longest_pause_s, budget.pause_s * 2.0 ** (before - 1))
    return replace(last, pause_s=pause_s, why=f"{before} of {budget.tries} tries again {why}")


def _on_demand(last: Try) -> StepProfile | None:
    """Return the size to fall back to from spot nodes, or None when the last try was not on any."""
    if not last.profile.is_spot or last.profile.on_demand is None:
        return None
    return profile(last.profile.on_demand)
