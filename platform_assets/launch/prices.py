"""Estimate what a product's next training may cost, before and after one was measured.

A first training has no estimate unless the spec states hours, only a limit, from price, deadline and tries. All prices
are list prices of profiles, for a machine of one's own too. Actual costs are `launch.costs`; stopping a launch is
`launch.monthly_budget`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from platform_assets.base.failures import FAILURES, LOST
from platform_assets.base.wording import counted
from platform_assets.launch import budgets
from platform_assets.launch.budgets import Expected
from platform_assets.launch.profiles import StepProfile, profile

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.product.spec import Product


@dataclass(frozen=True, kw_only=True)
class Limit(Expected):
    """The most that a training can cost, where nothing says what it is likely to."""


def next_training(spec: Product, attempts: pl.DataFrame | None = None) -> Expected:
    """Estimate the next training: as much as the newest finished one on this profile.

    If none has finished on it, the stated hours count, otherwise all tries that may have to be paid for, each up to its
    deadline. Stated hours that cost more than the measurement take precedence, because a person knows what changed.

    Args:
        attempts: by `store.history.attempts.SCHEMA`; None if there are none.
    """
    measured = None
    if attempts is not None:
        from platform_assets.launch import costs  # polars loads with it

        measured = costs.next_usd(attempts, spec.training.profile)
    hours, size = spec.retraining.expected_hours, profile(spec.training.profile)
    price = size.usd_per_hour_in_all
    if hours is not None and (measured is None or hours * price > measured):
        return Expected(usd=hours * price, reason=f"Retraining.expected_hours is {hours:g}, at {price:g} USD per hour")
    if measured is not None:
        return Expected(usd=measured)
    tries = [(tried, len(list(same))) for tried, same in groupby(paid_tries(size))]
    parts = (
        f"{tried.usd_per_hour_in_all:g} USD per hour x {tried.deadline_s / 3600:g} h x {counted(count, 'try')}"
        for tried, count in tries
    )
    return Limit(
        usd=sum(tried.usd_per_hour_in_all * tried.deadline_s / 3600 * count for tried, count in tries),
        reason=f"at most, as a first one on {size.name}: {' and '.join(parts)}",
        advice=f"If it takes less, state Retraining.expected_hours in platform_assets/products/{spec.name}.py.",
    )


def usd_of(cpu_s: float) -> float:
    """Return what CPU seconds cost, in US dollars: at the list price of `cpu_small` per core and hour."""
    size = profile("cpu_small")
    return cpu_s / 3600 * size.usd_per_hour / size.cores


def over_budget(spec: Product) -> str | None:
    """Return a sentence on how far the first training on this profile exceeds a month's budget; None if it does not."""
    return budgets.over_budget(0.0, next_training(spec), spec.retraining.monthly_budget_usd)


def check_hours(spec: Product) -> None:
    """Refuse stated hours that exceed the longest possible training on this profile."""
    hours = spec.retraining.expected_hours
    most_h = sum(tried.deadline_s for tried in paid_tries(profile(spec.training.profile))) / 3600
    if hours is not None and hours > most_h:
        raise ValueError(
            f"{spec.name}: Retraining.expected_hours is {hours}; a training on {spec.training.profile} takes at most "
            f"{most_h:g} h, with all its tries. State fewer hours, or another profile."
        )


def paid_tries(size: StepProfile) -> tuple[StepProfile, ...]:
    """Return the profiles of all attempts at a step in the costliest case, each running until its deadline.

    Attempts that end before a process starts (`is_unpaid`) cost nothing.
    """
    # Seven tries on demand; on spot nodes four, and then seven, because the last attempt moves to the twin on demand.
    on_spot = [size] * LOST.tries if size.is_spot else []
    last = size if size.on_demand is None else profile(size.on_demand)
    others = sum(failure.budget.tries for failure in FAILURES if not failure.is_loss and not failure.is_unpaid)
    return (*on_spot, *[last] * (1 + LOST.tries + others))
