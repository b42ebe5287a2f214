"""Describe how a try at a step ended, and decide how to try next.

Losses of spot nodes have a budget of their own: they use up no other tries, and the last one runs on demand.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from platform_assets.base import failures
from platform_assets.base.failures import LOST, Budget, Failure
from platform_assets.launch.profiles import StepProfile, profile
from platform_assets.training.steps.process import EXIT_HUNG

LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a try at a step ended.

    Attributes:
        failure: its class; None if it finished.
        evidence: one sentence without a full stop, as the step's host showed it.
        exit_code: of the step's process; negative for a signal; None if it had none or nobody saw it.
        asked_at: when the host was asked for it, by the host's clock; None if the host's clock is ours.
        started_at, ended_at: of the step's process, by the host's clock; None if it never ran, or nobody saw it.
        is_final: another try is useless, whatever the class's budget: a forbidden namespace, an invalid manifest.
        node: where it ran; empty if nobody saw it.
        limit_gb: the limit that it exceeded, in 10^9 bytes, if the host named it.
        node_s: for how many seconds each of several nodes was paid, on average; None for from start to end.
    """

    failure: Failure | None
    evidence: str
    exit_code: int | None = None
    asked_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_final: bool = False
    node: str = ""
    limit_gb: float | None = None
    node_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Try:
    """How to try: the profile, and what may differ from it.

    Attributes:
        memory_gb: in 10^9 bytes.
        storage_gb: ephemeral storage in 10^9 bytes; None for no limit of ours.
        forbidden_nodes: nodes with a broken device.
        avoided_nodes: nodes where an earlier try did not start; taken only where there is no other.
        pause_s: how long to wait before.
        reason: for the run's log; empty for a first try.
    """

    profile: StepProfile
    memory_gb: float
    storage_gb: float | None = None
    forbidden_nodes: tuple[str, ...] = ()
    avoided_nodes: tuple[str, ...] = ()
    pause_s: float = 0.0
    reason: str = ""


def first_try(size: StepProfile) -> Try:
    """Return the first try."""
    return Try(profile=size, memory_gb=size.memory_gb, storage_gb=size.storage_gb)


def of_exit(exit_code: int, subject: str, *, killed: str) -> tuple[Failure | None, str]:
    """Classify the exit code of a process that has run; return the class and the evidence.

    Args:
        exit_code: negative, or above 128, for a signal.
        subject: the process or its container.
        killed: what is known about a SIGKILL.
    """
    if exit_code == 0:
        return None, "it finished"
    if exit_code == EXIT_HUNG:
        return failures.HUNG, "its process ended itself, because no step had ended for too long"
    failure = failures.of_signal(exit_code)
    if failure is None or failure.signal is None:
        return failures.CODE, "its process ended by itself"
    evidence = f"{subject} got {failure.signal.name}"
    return failure, f"{evidence}, {killed}" if failure is failures.KILLED else evidence


def next_try(
    past: Sequence[tuple[Try, Ending]], *, lost: Budget = LOST, longest_pause_s: float = LONGEST_PAUSE_S
) -> Try | None:
    """Return the next try after the tries so far, or None when another one is useless.

    Args:
        past: each try and how it ended, newest last.
        lost: budget of losses on spot nodes, and again of losses on other nodes.
        longest_pause_s: between two tries.
    """
    last, ending = past[-1]
    failure = ending.failure
    if failure is None or ending.is_final:
        return None
    if ending.node and failure.other_node == "required":
        last = replace(last, forbidden_nodes=tuple(sorted({*last.forbidden_nodes, ending.node})))
    elif ending.node and failure.other_node:
        last = replace(last, avoided_nodes=tuple(sorted({*last.avoided_nodes, ending.node})))
    size = last.profile
    on_demand = profile(size.on_demand).replace(nodes=size.nodes) if size.is_spot and size.on_demand else None
    if failure.is_loss:
        count = sum(
            other.failure is not None and other.failure.is_loss and item.profile.is_spot == size.is_spot
            for item, other in past
        )
        if on_demand is not None and count >= lost.tries:
            return replace(
                last, profile=on_demand, pause_s=0.0, reason=f"on demand, after {count} losses on spot nodes"
            )
        return _again(last, lost, count, "after a loss", longest_pause_s)
    if failure.needs_on_demand and on_demand is not None:
        return replace(last, profile=on_demand, pause_s=0.0, reason="on demand, because no spot node was available")
    count = sum(other.failure is failure for _, other in past)
    repeat = _again(last, failure.budget, count, "for this reason", longest_pause_s)
    if repeat is not None and failure.is_random_pause:
        repeat = replace(repeat, pause_s=random.uniform(repeat.pause_s, 2 * repeat.pause_s))
    return None if repeat is None else _larger(repeat, ending, failure)


def _larger(repeat: Try, ending: Ending, failure: Failure) -> Try | None:
    """Return the try with more of what was short; None where it had no limit that could be raised."""
    size = repeat.profile
    if failure.needs_memory:
        memory_gb = size.larger_memory_gb or 2 * repeat.memory_gb
        reason = f"with {memory_gb:g} GB of memory instead of {repeat.memory_gb:g}"
        return replace(repeat, memory_gb=memory_gb, reason=reason)
    if failure.needs_storage:
        limit_gb = repeat.storage_gb or ending.limit_gb
        if limit_gb is None:
            return None
        storage_gb = size.larger_storage_gb or 2 * limit_gb
        reason = f"with {storage_gb:g} GB of ephemeral storage instead of {limit_gb:g}"
        return replace(repeat, storage_gb=storage_gb, reason=reason)
    return repeat


def _again(last: Try, budget: Budget, before: int, cause: str, longest_pause_s: float) -> Try | None:
    """Return the same try after a pause, or None when the budget is used up by `before` endings."""
    if before > budget.tries:
        return None
    pause_s = min(longest_pause_s, budget.pause_s * 2.0 ** (before - 1))
    return replace(last, pause_s=pause_s, reason=f"retry {before} of {budget.tries} {cause}")
