"""Measure what a plan of retrainings was worth, beside an even calendar, random dates and hindsight.

Belongs here: shares of gain and cost, the paired difference, and the sentences that say what they show. Does not
belong here: plans themselves (`compute.backtest`), or who makes them (`compute.backtest_policies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from platform_assets.compute import paired
from platform_assets.compute.backtest import DRAWS, Past, Plan, best, even, random_plans


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one policy would have bought, beside plans of as many retrainings.

    Attributes:
        policy: its name.
        plan: the fits it would have made.
        retrainings: their number, the first fit left out.
        cpu_s, cost_share: what they cost, and as a share of training at every decision.
        log_loss, headline: over all rows of the span; the task's first measure.
        gain_share: of what training at every decision gains over never; None where that gains nothing.
        even_gain_share, even_cost_share: of the even calendar.
        minus_even, minus_even_low, minus_even_high: log loss minus the even calendar's, clustered by key.
        random_gain_share, random_low, random_high: mean, least and greatest of random dates.
        best_gain_share: of the best dates, known only in hindsight.
    """

    policy: str
    plan: Plan
    retrainings: int
    cpu_s: float
    cost_share: float
    log_loss: float
    headline: float | None
    gain_share: float | None
    even_gain_share: float | None
    even_cost_share: float
    minus_even: float
    minus_even_low: float
    minus_even_high: float
    random_gain_share: float | None
    random_low: float | None
    random_high: float | None
    best_gain_share: float | None

    def row(self) -> dict[str, str | float | None]:
        """Return all but the plan."""
        return {name: value for name, value in asdict(self).items() if name != "plan"}


def gain_share(past: Past, log_loss: float) -> float | None:
    """Return (never - this) / (never - always) in log loss; None where training at every decision gains nothing."""
    never, always = past.log_loss((0,)), past.log_loss(tuple(range(past.fits)))
    return None if never <= always else (never - log_loss) / (never - always)


def difference(past: Past, plan: Plan, other: Plan) -> paired.Difference:
    """Return a plan's log loss minus another's on the same rows, clustered by key; below zero it is better."""
    labels, said, keys = past.stitched(plan)
    others = past.stitched(other)[1]
    return paired.mean_difference(past.task.losses(labels, said), past.task.losses(labels, others), keys)


def outcome(past: Past, policy: str, plan: Plan, *, draws: int = DRAWS, seed: int = 0) -> Outcome:
    """Measure a policy's plan beside an even calendar, random dates and the best dates of as many retrainings."""
    count = len(plan) - 1
    labels, said, _ = past.stitched(plan)
    always_s = past.cost_s(tuple(range(past.fits)))
    evenly = even(past, count)
    against = difference(past, plan, evenly)
    shares = [gain_share(past, past.log_loss(each)) for each in random_plans(past, count, draws=draws, seed=seed)]
    drawn = [share for share in shares if share is not None]
    log_loss = past.log_loss(plan)
    return Outcome(
        policy=policy,
        plan=plan,
        retrainings=count,
        cpu_s=past.cost_s(plan),
        cost_share=past.cost_s(plan) / always_s if always_s else 0.0,
        log_loss=log_loss,
        headline=past.task.quality(labels, said)[past.task.headline.name],
        gain_share=gain_share(past, log_loss),
        even_gain_share=gain_share(past, past.log_loss(evenly)),
        even_cost_share=past.cost_s(evenly) / always_s if always_s else 0.0,
        minus_even=against.value,
        minus_even_low=against.low,
        minus_even_high=against.high,
        random_gain_share=float(np.mean(drawn)) if drawn else None,
        random_low=min(drawn, default=None),
        random_high=max(drawn, default=None),
        best_gain_share=gain_share(past, past.log_loss(best(past, count))),
    )


def sentences(own: Outcome, others: Sequence[Outcome]) -> list[str]:
    """Return what a backtest shows of the product's own policy, also where a calendar is the better choice.

    Args:
        own: of the product's policy.
        others: of all other policies.
    """
    first = (
        f"The product's policy trains {own.retrainings} times: {_percent(own.gain_share)} of the gain of training at "
        f"every decision, for {_percent(own.cost_share)} of its CPU seconds."
    )
    found = [first]
    found.append(_beside_the_calendar("It", own))
    if own.random_low is not None and own.gain_share is not None:
        found.append(
            f"Random dates of the same number gain {_percent(own.random_low)} to {_percent(own.random_high)}; the best "
            f"dates, known only afterwards, {_percent(own.best_gain_share)}."
        )
    cheaper = [
        each
        for each in others
        if own.gain_share is not None
        and each.gain_share is not None
        and each.gain_share >= own.gain_share
        and each.cpu_s < own.cpu_s
    ]
    found += [
        f"{each.policy} gains as much for less: {_percent(each.gain_share)} for {_percent(each.cost_share)}."
        for each in cheaper
    ]
    found += [
        f"{each.policy}, {_percent(each.gain_share)} for {_percent(each.cost_share)}: "
        + _beside_the_calendar("it", each)
        for each in others
        if not _is_its_calendar(each)
    ]
    return found


def _beside_the_calendar(subject: str, found: Outcome) -> str:
    """Return who wins, a policy or the even calendar of as many retrainings, as one sentence."""
    calendar = f"an even calendar of {found.retrainings}"
    if _is_its_calendar(found):
        return f"{subject} is {calendar}, date by date."
    interval = (
        f"{found.minus_even:+.4f} ({found.minus_even_low:+.4f} to {found.minus_even_high:+.4f}, clustered by key)"
    )
    if found.minus_even_low > 0:
        return f"{subject} loses to {calendar}: log loss {interval}."
    if found.minus_even_high < 0:
        return f"{subject} beats {calendar}: log loss {interval}."
    return f"{subject} cannot be told from {calendar}: log loss {interval}."


def _is_its_calendar(found: Outcome) -> bool:
    return found.minus_even == found.minus_even_low == found.minus_even_high == 0


def _percent(share: float | None) -> str:
    return "no share" if share is None else f"{share:.0%}"
