"""Say how often a step may be tried, for whoever expects what that may cost.

Belongs here: the costliest course of tries. Does not belong here: the classes of failure and their budgets
(`failures.py`), how a try ended and what follows (`resources/launchers/endings.py`), or sizes and prices
(`profiles.py`).
"""

from __future__ import annotations

from platform_assets.failures import FAILURES, LOST
from platform_assets.profiles import StepProfile, profile


def paid_tries(size: StepProfile) -> tuple[StepProfile, ...]:
    """Return the sizes of all tries of a step that may run, each up to its deadline, in the costliest course.

    Those that end before a process began (`is_unpaid`) cost nothing.
    """
    on_spot = [size] * LOST.tries if size.is_spot else []
    last = size if size.on_demand is None else profile(size.on_demand)
    others = sum(failure.budget.tries for failure in FAILURES if not failure.is_loss and not failure.is_unpaid)
    return (*on_spot, *[last] * (1 + LOST.tries + others))
