"""Compute the costliest sequence of attempts at a step, for cost estimates."""

from __future__ import annotations

from platform_assets.base.failures import FAILURES, LOST
from platform_assets.launch.profiles import StepProfile, profile


def paid_tries(size: StepProfile) -> tuple[StepProfile, ...]:
    """Return the profiles of all attempts at a step in the costliest case, each running until its deadline.

    Attempts that end before a process starts (`is_unpaid`) cost nothing.
    """
    on_spot = [size] * LOST.tries if size.is_spot else []
    last = size if size.on_demand is None else profile(size.on_demand)
    others = sum(failure.budget.tries for failure in FAILURES if not failure.is_loss and not failure.is_unpaid)
    return (*on_spot, *[last] * (1 + LOST.tries + others))
