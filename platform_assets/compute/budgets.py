"""Say what a training may cost, and by how much it would exceed a month's budget.

Belongs here: what a decision weighs. Does not belong here: what attempts did cost (`compute.costs`).
"""

from __future__ import annotations

from dataclasses import dataclass


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
