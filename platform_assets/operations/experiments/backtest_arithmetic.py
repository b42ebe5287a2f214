"""Replay retraining policies over existing fits: which fit answers which key, how well, at what cost; and compare them
with an even calendar, random dates and hindsight.

Training and scoring are `operations.experiments.backtest`; what a policy chooses is
`operations.experiments.backtest_policies`.

A **plan** is an ascending tuple of fits and always contains the first one (0), because something must answer from the
first key on, whatever the policy. So the first fit is free, and "never" costs nothing. Fit f answers from its cutoff
until the next fit of the plan takes over. Log loss is the mean over all rows of the span, so keys count by their rows.

Shapes: F fits, G keys, N rows, P numbers per answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.base.wording import counted
from platform_assets.evaluation import paired

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.base import Measures

DRAWS = 20
Plan = tuple[int, ...]
Decide = Callable[[int, int], bool]
"""`(champion, fit) -> whether to train`, at the decision that could produce `fit`, while `champion` answers."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """Everything that could have been trained, and each fit's answers on every key from its cutoff on.

    Attributes:
        keys: in order, from the first cutoff on [G].
        labels: by key, in the task's encoding [G][N].
        starts: index of each fit's cutoff among the keys, ascending from 0 [F].
        answers: of each fit, by key from its cutoff on [F][G - start][N] or [N, P].
        cpu_s: of each fit [F].
    """

    measures: Measures
    keys: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    starts: tuple[int, ...]
    answers: tuple[tuple[np.ndarray, ...], ...]
    cpu_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"fits start at the keys {self.starts}; expected ascending indexes from 0.")
        if len(self.labels) != len(self.keys) or not len(self.starts) == len(self.answers) == len(self.cpu_s):
            raise ValueError(
                f"got {len(self.keys)} keys with {len(self.labels)} arrays of labels, and {len(self.starts)} fits with "
                f"{len(self.answers)} scores and {len(self.cpu_s)} costs; expected one of each."
            )
        rows = [len(labels) for labels in self.labels]
        for fit, (start, answers) in enumerate(zip(self.starts, self.answers, strict=True)):
            if [len(key_answers) for key_answers in answers] != rows[start:]:
                raise ValueError(f"fit {fit} does not score exactly the labelled rows of the keys from {start} on.")

    @property
    def fits(self) -> int:
        """The number of fits."""
        return len(self.starts)

    @cached_property
    def rows(self) -> np.ndarray:
        """The number of labelled rows of each key [G]."""
        return np.array([len(labels) for labels in self.labels])

    @cached_property
    def losses(self) -> np.ndarray:
        """The summed log loss in nats of each fit on each key [F, G]; NaN before the fit's cutoff."""
        losses = np.full((self.fits, len(self.keys)), np.nan)
        for fit, (start, answers) in enumerate(zip(self.starts, self.answers, strict=True)):
            for index, key_answers in enumerate(answers, start=start):
                has_rows = len(key_answers) > 0
                losses[fit, index] = (
                    self.measures.task.losses(self.labels[index], key_answers).sum() if has_rows else 0.0
                )
        return losses

    def scored(self, fit: int, first: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, answers and keys [N] of one fit's rows at the key indexes `first` to `end` (exclusive)."""
        indexes = range(first, end)
        return (
            np.concatenate([self.labels[index] for index in indexes]),
            np.concatenate([self.answers[fit][index - self.starts[fit]] for index in indexes]),
            np.repeat([self.keys[index] for index in indexes], self.rows[first:end]),
        )

    def turns(self, plan: Plan) -> list[tuple[int, int, int]]:
        """Return which fit answers when: (fit, first key index, index after the last), in order."""
        if not plan or plan[0] != 0 or list(plan) != sorted(set(plan)) or plan[-1] >= self.fits:
            raise ValueError(f"plan is {plan}; expected ascending fits from 0 below {self.fits}.")
        ends = [*(self.starts[fit] for fit in plan[1:]), len(self.keys)]
        return [(fit, self.starts[fit], end) for fit, end in zip(plan, ends, strict=True)]

    def stitched(self, plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, answers and keys [N] of all rows as the plan would have answered them."""
        parts = [self.scored(*turn) for turn in self.turns(plan)]
        labels, answers, keys = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return labels, answers, keys

    def log_loss(self, plan: Plan) -> float:
        """Return the mean log loss of a plan in nats."""
        total = sum(self.losses[fit, first:end].sum() for fit, first, end in self.turns(plan))
        return float(total / self.rows.sum())

    def cost_s(self, plan: Plan) -> float:
        """Return the CPU seconds of a plan's retrainings."""
        return float(sum(self.cpu_s[fit] for fit in plan[1:]))


def walk(past: Past, decide: Decide) -> Plan:
    """Return the plan of a policy that decides at every decision, from the second fit on."""
    plan = [0]
    for fit in range(1, past.fits):
        if decide(plan[-1], fit):
            plan.append(fit)
    return tuple(plan)


def even(past: Past, retrainings: int) -> Plan:
    """Return the plan with evenly spaced retrainings."""
    check_count(past, retrainings)
    step = past.fits / (retrainings + 1)
    return (0, *(int(np.floor(step * number + 0.5)) for number in range(1, retrainings + 1)))


def random_plans(past: Past, retrainings: int, *, draws: int = DRAWS, seed: int = 0) -> list[Plan]:
    """Draw plans with retrainings at random decisions; every set of dates is equally likely."""
    check_count(past, retrainings)
    stream = np.random.default_rng([seed, retrainings])
    drawn = (stream.choice(np.arange(1, past.fits), retrainings, replace=False) for _ in range(draws))
    return [(0, *sorted(int(fit) for fit in fits)) for fits in drawn]


def best(past: Past, retrainings: int) -> Plan:
    """Return the plan with the lowest log loss for this number of retrainings, known only in hindsight.

    Dynamic programming over the last fit of a plan: F^2 steps per retraining.
    """
    check_count(past, retrainings)
    before = np.concatenate([np.zeros((past.fits, 1)), np.cumsum(np.nan_to_num(past.losses), axis=1)], axis=1)
    ends = np.array([*past.starts, len(past.keys)])
    spent = before[:, ends] - before[np.arange(past.fits), past.starts][:, None]
    least = np.full(past.fits, np.inf)
    least[0] = 0.0
    came_from: list[np.ndarray] = []
    for _ in range(retrainings):
        through = least[:, None] + spent[:, : past.fits]
        through[np.tril_indices(past.fits)] = np.inf
        came_from.append(np.argmin(through, axis=0))
        least = np.min(through, axis=0)
    plan = [int(np.argmin(least + spent[:, past.fits]))]
    for origin in reversed(came_from):
        plan.append(int(origin[plan[-1]]))
    return tuple(reversed(plan))


def check_count(past: Past, retrainings: int) -> None:
    """Refuse more retrainings than there are decisions."""
    if not 0 <= retrainings < past.fits:
        raise ValueError(f"{retrainings} retrainings among {past.fits - 1} decisions; expected 0 to {past.fits - 1}.")


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
    return paired.mean_difference(
        past.measures.task.losses(labels, answers), past.measures.task.losses(labels, other_answers), keys
    )


def outcome(past: Past, policy: str, plan: Plan) -> Outcome:
    """Measure a policy's plan against the even, random and best plans with as many retrainings."""
    count = len(plan) - 1
    labels, answers, _ = past.stitched(plan)
    always_s = past.cost_s(tuple(range(past.fits)))
    evenly = even(past, count)
    against = difference(past, plan, evenly)
    shares = [gain_share(past, past.log_loss(random_plan)) for random_plan in random_plans(past, count)]
    drawn = [share for share in shares if share is not None]
    log_loss = past.log_loss(plan)
    return Outcome(
        policy=policy,
        plan=plan,
        retrainings=count,
        cpu_s=past.cost_s(plan),
        cost_share=past.cost_s(plan) / always_s if always_s else 0.0,
        log_loss=log_loss,
        headline=past.measures.quality(labels, answers)[past.measures.headline.name],
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
    lines = [
        (
            f"The product's policy trains {counted(own.retrainings, 'time')}: {percent(own.gain_share)} of the gain of "
            f"training at every decision, for {percent(own.cost_share)} of its CPU seconds."
        ),
        _against_calendar("It", own),
    ]
    if own.random_low is not None and own.gain_share is not None:
        lines.append(
            f"As many random dates gain {percent(own.random_low)} to {percent(own.random_high)}; the best "
            f"dates, known only in hindsight, {percent(own.best_gain_share)}."
        )
    if own.gain_share is not None:
        lines += [
            f"{other.policy} gains as much for less: {percent(other.gain_share)} for {percent(other.cost_share)}."
            for other in others
            if other.gain_share is not None and other.gain_share >= own.gain_share and other.cpu_s < own.cpu_s
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
