"""Say what attempts cost: their time at the price of their profile, what of it led to a model, and what was lost.

Belongs here: pure sums over records of the attempts ledger. Does not belong here: reading it (`facts.budget`,
`stages.cost`), plots (`show.cost_plots`), or which attempts led to which model (`compute.accepted`).

A record needs no more than `wall_s` and `usd_per_hour`; those of older versions have little else. Where a record does
not say what it saved, all of its work counts as lost: what is not known to be kept is not claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from platform_assets.failures import FAILURES
from platform_assets.records.attempts import Attempt

Work = tuple[str, object]
"""What tries share: the step and the fingerprint; a record without a fingerprint is its own work."""

FINISHED = "finished"
TRAIN, EXPORT, BACKTEST = "train", "export", "backtest"
TAKEN_AWAY = (*(failure.name for failure in FAILURES if failure.is_taken), "vanished")
"""How a spot node ends a try that would have gone on elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What money bought, in US dollars.

    Attributes:
        useful: work that is in an accepted model.
        rejected: work of trainings that ended, whose models were not accepted (yet).
        lost: work that was done and had to be done again.
        failed: tries at what nobody has finished.
    """

    useful: float = 0.0
    rejected: float = 0.0
    lost: float = 0.0
    failed: float = 0.0

    def __add__(self, other: Parts) -> Parts:
        return Parts(**{name: getattr(self, name) + getattr(other, name) for name in PARTS})

    @property
    def total(self) -> float:
        """All four together."""
        return self.useful + self.rejected + self.lost + self.failed


PARTS = ("useful", "rejected", "lost", "failed")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a training may cost, in US dollars.

    Attributes:
        why: how that is known; empty where it was measured.
        advice: a sentence that says how to state it better, if there is a way.
    """

    usd: float
    why: str = ""
    advice: str = ""


NOTHING = Expected(usd=0.0)


def cost_usd(attempt: Attempt) -> float:
    """Return the price of one attempt in US dollars: hours of wall time at its profile's price."""
    return _hours(attempt) * attempt.usd_per_hour


def on_demand_cost_usd(attempt: Attempt) -> float:
    """Return what the same time would have cost on a node that nobody takes away."""
    price = attempt.on_demand_usd_per_hour
    return _hours(attempt) * (attempt.usd_per_hour if price is None else price)


def total_usd(attempts: Iterable[Attempt]) -> float:
    """Return what attempts cost together."""
    return sum(cost_usd(attempt) for attempt in attempts)


def next_usd(attempts: Iterable[Attempt], profile: str) -> float | None:
    """Return what the newest finished training of a size cost; None when none of this size has finished.

    Counted are all tries at that training, also those that were taken away before the one that finished, and the
    exports of its cutoff that followed: a next training pays for the same. A training that never finished says nothing
    about one that does.

    Args:
        attempts: the newest first.
        profile: on which it, or a try at it, ran: the last one of a spot size is on demand. A record without one is of
            a time when there was one size.
    """
    found = list(attempts)
    sized = {work_of(each) for each in found if each.profile in (profile, None)}
    ended = (at for at, each in enumerate(found) if step_of(each) == TRAIN and each.reason == FINISHED)
    place = next((at for at in ended if work_of(found[at]) in sized), None)
    if place is None:
        return None
    newest = found[place]
    tries = [each for each in found if work_of(each) == work_of(newest)]
    exports = [each for each in found[:place] if step_of(each) == EXPORT and each.cutoff == newest.cutoff]
    return total_usd([*tries, *exports])


def remaining_usd(whole_usd: float, attempts: Iterable[Attempt], fingerprint: str) -> float:
    """Return what a training may still cost: the whole, less what its own tries have paid for and saved."""
    own = [each for each in attempts if step_of(each) == TRAIN and each.fingerprint == fingerprint]
    return max(0.0, whole_usd - sum(cost_usd(each) * (1 - lost_share(each)) for each in own))


def over_budget(spent_usd: float, following: Expected, budget_usd: float | None) -> str | None:
    """Return by how much a next training would exceed a month's budget, as a sentence; None when it would not.

    Args:
        spent_usd: what the month's attempts cost so far.
        following: what the next one may cost.
        budget_usd: None for no limit.
    """
    if budget_usd is None or spent_usd + following.usd <= budget_usd:
        return None
    why = f" ({following.why})" if following.why else ""
    return (
        f"the month's trainings cost {spent_usd:.2f} USD and the next about {following.usd:.2f}{why}; the budget is "
        f"{budget_usd:.2f}, exceeded by {spent_usd + following.usd - budget_usd:.2f}. {following.advice}"
    ).rstrip()


def step_of(attempt: Attempt) -> str:
    """Return which step was tried; older records are of trainings."""
    return attempt.step or TRAIN


def work_of(attempt: Attempt) -> Work:
    """Return what this try has in common with others at the same."""
    return step_of(attempt), id(attempt) if attempt.fingerprint is None else attempt.fingerprint


def finished(attempts: Iterable[Attempt]) -> frozenset[Work]:
    """Return what somebody has finished."""
    return frozenset(work_of(each) for each in attempts if each.reason == FINISHED)


def lost_share(attempt: Attempt) -> float:
    """Return the share of an attempt's work that had to be done again: 0 when it finished, 1 when nothing was saved."""
    if attempt.reason == FINISHED:
        return 0.0
    done = (attempt.steps_done or 0) - (attempt.resumed_from_step or 0)
    lost = _lost(attempt)
    return 1.0 if lost is None or done <= 0 else min(1.0, max(0.0, lost / done))


def parts(attempt: Attempt, done: Collection[Work], *, is_accepted: bool) -> Parts:
    """Return what an attempt's money bought; the parts add up to its cost.

    Args:
        attempt: finished or not.
        done: what somebody has finished, from `finished`.
        is_accepted: whether it led to an accepted model.
    """
    cost = cost_usd(attempt)
    if work_of(attempt) not in done:
        return Parts(failed=cost)
    lost = cost * lost_share(attempt)
    kept = cost - lost
    return Parts(useful=kept, lost=lost) if is_accepted else Parts(rejected=kept, lost=lost)


def spot_saving_usd(attempts: Iterable[Attempt]) -> float:
    """Return how much less the same seconds cost than on demand."""
    return sum(on_demand_cost_usd(each) - cost_usd(each) for each in attempts)


def net_spot_saving_usd(attempts: Iterable[Attempt]) -> float:
    """Return the saving less what interruptions cost: on demand, nobody had paid for work that a node took along."""
    return sum(_on_demand_kept_usd(each) - cost_usd(each) for each in attempts)


def steps_lost(attempts: Iterable[Attempt]) -> int:
    """Return how many optimizer steps were done and not saved, as far as records say."""
    return sum(_lost(each) or 0 for each in attempts)


def waited_s(attempt: Attempt) -> float | None:
    """Return how long an attempt waited for its node: until it started, or, if it never did, until it was given up.

    None when its record does not say.
    """
    if attempt.waited_s is not None:
        return attempt.waited_s
    asked, ended = attempt.requested_at_utc, attempt.ended_at_utc
    if attempt.started_at_utc or not asked or not ended:
        return None
    return max(0.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(asked)).total_seconds())


def began_at_utc(attempt: Attempt) -> str:
    """Return the moment for which an attempt counts: its start, or, if it never started, when it was asked for."""
    return attempt.started_at_utc or attempt.requested_at_utc or attempt.ended_at_utc or ""


def _on_demand_kept_usd(attempt: Attempt) -> float:
    is_taken = bool(attempt.is_spot) and attempt.reason in TAKEN_AWAY
    return on_demand_cost_usd(attempt) * (1.0 - lost_share(attempt) if is_taken else 1.0)


def _lost(attempt: Attempt) -> int | None:
    """Return how many steps were done and not saved; None where the record does not say."""
    if attempt.reason == FINISHED:
        return 0
    if attempt.steps_lost is not None:
        return attempt.steps_lost
    saved = attempt.steps_saved
    return None if saved is None else max(0, (attempt.steps_done or 0) - saved)


def _hours(attempt: Attempt) -> float:
    return (attempt.wall_s or 0.0) / 3600
