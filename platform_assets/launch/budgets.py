"""Weigh the expected cost of a training against a month's budget. Actual costs are `launch.costs`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected cost of a training in US dollars.

    Attributes:
        reason: where the number comes from; empty if it was measured.
        advice: a sentence on how to state it better, if possible.
    """

    usd: float
    reason: str = ""
    advice: str = ""


def over_budget(spent_usd: float, following: Expected, budget_usd: float | None) -> str | None:
    """Return a sentence on how far the next training would exceed the month's budget; None if it would not.

    Args:
        spent_usd: cost of the month's attempts so far.
        following: expected cost of the next training.
        budget_usd: None for no limit.
    """
    if budget_usd is None or spent_usd + following.usd <= budget_usd:
        return None
    reason = f" ({following.reason})" if following.reason else ""
    return (
        f"the month's trainings cost {spent_usd:.2f} USD and the next about {following.usd:.2f}{reason}; the budget is "
        f"{budget_usd:.2f}, exceeded by {spent_usd + following.usd - budget_usd:.2f}. {following.advice}"
    ).rstrip()
