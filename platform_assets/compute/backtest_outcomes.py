"""Measure what a plan of retrainings was worth, compared with an even calendar, random dates and hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from platform_assets.compute import paired
from platform_assets.compute.backtest import DRAWS, Past, Plan, best, even, random_plans
from platform_assets.wording import counted


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one policy would have gained and cost, compared with plans of as many retrainings.

    Attributes:
        plan: the fits it would have made.
        retrainings: their number, without the first fit.
        cpu_s, cost_share: their cost, and its share of the cost of training at every decision.
        log_loss, headline: over all rows of the span; the headline is the task's first measure.
        gain_share: share of the gain of training at every decision over never; None where that gains nothing.
        even_gain_share, even_cost_share: of the even calendar.
        minus_even, minus_even_low, minus_even_high: log loss minus the even calendar's, clustered by key.
        random_gain_share, random_low, random_high: mean, lowest and highest of random dates.
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
        """Return every member except the plan."""
        return {name: value for name, value in asdict(self).items() if name != "plan"}


def gain_share(past: Past, log_loss: float) -> float | None:
    """Return (never - this) / (never - always) in log loss; None where training at every decision gains nothing."""
    never, always = past.log_loss((0,)), past.log_loss(tuple(range(past.fits)))
    return None if never <= always else (never - log_loss) / (never - always)


def difference(past: Past, plan: Plan, other: Plan) -> paired.Difference:
    """Return a plan's log loss minus another's on the same rows, clustered by key; negative is better."""
    labels, answers, keys = past.stitched(plan)
    other_answers = past.stitched(other)[1]
    return paired.mean_difference(past.task.losses(labels, answers), past.task.losses(labels, other_answers), keys)


def outcome(past: Past, policy: str, plan: Plan, *, draws: int = DRAWS, seed: int = 0) -> Outcome:
    """Measure a policy's plan against the even, random and best plans with as many retrainings."""
    count = len(plan) - 1
    labels, answers, _ = past.stitched(plan)
    always_s = past.cost_s(tuple(range(past.fits)))
    evenly = even(past, count)
    against = difference(past, plan, evenly)
    shares = [
        gain_share(past, past.log_loss(random_plan))
        for random_plan in random_plans(past, count, draws=draws, seed=seed)
    ]
    drawn = [share for share in shares if share is not None]
    log_loss = past.log_loss(plan)
    return Outcome(
        policy=policy,
        plan=plan,
        retrainings=count,
        cpu_s=past.cost_s(plan),
        cost_share=past.cost_s(plan) / always_s if always_s else 0.0,
        log_loss=log_loss,
        headline=past.task.quality(labels, answers)[past.task.headline.name],
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
    """Return the findings of a backtest about the product's own policy, including where a calendar does better.

    Args:
        own: of the product's policy.
        others: of all other policies.
    """
    first = (
        f"The product's policy trains {counted(own.retrainings, 'time')}: {percent(own.gain_share)} of the gain of "
        f"training at every decision, for {percent(own.cost_share)} of its CPU seconds."
    )
    lines = [first]
    lines.append(_against_calendar("It", own))
    if own.random_low is not None and own.gain_share is not None:
        lines.append(
            f"As many random dates gain {percent(own.random_low)} to {percent(own.random_high)}; the best "
            f"dates, known only in hindsight, {percent(own.best_gain_share)}."
        )
    cheaper = [
        other
        for other in others
        if own.gain_share is not None
        and other.gain_share is not None
        and other.gain_share >= own.gain_share
        and other.cpu_s < own.cpu_s
    ]
    lines += [
        f"{other.policy} gains as much for less: {percent(other.gain_share)} for {percent(other.cost_share)}."
        for other in cheaper
    ]
    lines += [
        f"{other.policy}, {percent(other.gain_share)} for {percent(other.cost_share)}: "
        + _against_calendar("it", other)
        for other in others
        if not _is_its_calendar(other)
    ]
    return lines


def _against_calendar(subject: str, outcome: Outcome) -> str:
    """Return which is better, a policy or the even calendar with as many retrainings, as one sentence."""
    calendar = f"an even calendar of {counted(outcome.retrainings, 'retraining')}"
    if _is_its_calendar(outcome):
        return f"{subject} is {calendar}, date by date."
    interval = (
        f"{outcome.minus_even:+.4f} ({outcome.minus_even_low:+.4f} to {outcome.minus_even_high:+.4f}, clustered by key)"
    )
    if outcome.minus_even_low > 0:
        return f"{subject} loses to {calendar}: log loss {interval}."
    if outcome.minus_even_high < 0:
        return f"{subject} beats {calendar}: log loss {interval}."
    return f"{subject} cannot be distinguished from {calendar}: log loss {interval}."


def _is_its_calendar(outcome: Outcome) -> bool:
    return outcome.minus_even == outcome.minus_even_low == outcome.minus_even_high == 0


def percent(share: float | None) -> str:
    """Return a share of the gain or the cost as a text."""
    return "no share" if share is None else f"{share:.0%}"
