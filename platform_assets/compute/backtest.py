"""Replay retraining policies over fits that are there already: who answers which key, how well, at what cost.

Belongs here: the fits' past, and plans: choices among fits. Does not belong here: training or scoring
(`steps.backtest`), what a policy chooses (`compute.backtest_policies`), or what a plan was worth beside others
(`compute.backtest_outcomes`).

A **plan** is an ascending tuple of fits, the first one (0) always in it: whatever the policy, something has to answer
from the first key on. So the first fit is nobody's cost, and "never" costs nothing. Fit f answers from its cutoff until
the next one of the plan takes over. Log loss is the mean over all rows of the span, so a key counts by its rows.

Shapes: F fits, G keys, N rows, P numbers of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task

DRAWS = 20
Plan = tuple[int, ...]
Decide = Callable[[int, int], bool]
"""`(champion, fit) -> whether to train`: at the decision that could make `fit`, with `champion` answering."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What could have been trained, and what each fit says about every key from its cutoff on.

    Attributes:
        keys: in order, from the first cutoff on [G].
        task: of the product.
        labels: by key, as the task has them [G][N].
        starts: the place of each fit's cutoff among the keys, ascending from 0 [F].
        said: answers of each fit, by key from its cutoff on [F][G - start][N] or [N, P].
        cpu_s: of each fit [F].
    """

    task: Task
    keys: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    starts: tuple[int, ...]
    said: tuple[tuple[np.ndarray, ...], ...]
    cpu_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.starts or self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"fits start at the places {self.starts}; expected ascending places from 0.")
        if len(self.labels) != len(self.keys) or not len(self.starts) == len(self.said) == len(self.cpu_s):
            raise ValueError(
                f"got {len(self.keys)} keys with {len(self.labels)} arrays of labels, and {len(self.starts)} fits with "
                f"{len(self.said)} scores and {len(self.cpu_s)} costs; expected one of each."
            )
        rows = [len(each) for each in self.labels]
        for fit, (start, said) in enumerate(zip(self.starts, self.said, strict=True)):
            if [len(each) for each in said] != rows[start:]:
                raise ValueError(f"fit {fit} does not score exactly the labelled rows of the keys from {start} on.")

    @property
    def fits(self) -> int:
        """The number of fits."""
        return len(self.starts)

    @cached_property
    def rows(self) -> np.ndarray:
        """The number of labelled rows of each key [G]."""
        return np.array([len(each) for each in self.labels])

    @cached_property
    def losses(self) -> np.ndarray:
        """The sum of log losses in nats of each fit on each key [F, G]; NaN before the fit's cutoff."""
        found = np.full((self.fits, len(self.keys)), np.nan)
        for fit, (start, said) in enumerate(zip(self.starts, self.said, strict=True)):
            for place, answers in enumerate(said, start=start):
                some = len(answers) > 0
                found[fit, place] = self.task.losses(self.labels[place], answers).sum() if some else 0.0
        return found

    def answers(self, fit: int, first: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, answers and keys [N] of one fit's rows at the places from `first` up to `end`."""
        places = range(first, end)
        return (
            np.concatenate([self.labels[place] for place in places]),
            np.concatenate([self.said[fit][place - self.starts[fit]] for place in places]),
            np.repeat([self.keys[place] for place in places], self.rows[first:end]),
        )

    def turns(self, plan: Plan) -> list[tuple[int, int, int]]:
        """Return who answers when: (fit, first place, place after the last), in order."""
        if not plan or plan[0] != 0 or list(plan) != sorted(set(plan)) or plan[-1] >= self.fits:
            raise ValueError(f"plan is {plan}; expected ascending fits from 0 below {self.fits}.")
        ends = [*(self.starts[fit] for fit in plan[1:]), len(self.keys)]
        return [(fit, self.starts[fit], end) for fit, end in zip(plan, ends, strict=True)]

    def stitched(self, plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, answers and keys [N] of all rows as the plan would have answered them."""
        parts = [self.answers(*turn) for turn in self.turns(plan)]
        labels, said, keys = (np.concatenate(each) for each in zip(*parts, strict=True))
        return labels, said, keys

    def log_loss(self, plan: Plan) -> float:
        """Return the mean log loss of a plan in nats."""
        total = sum(self.losses[fit, first:end].sum() for fit, first, end in self.turns(plan))
        return float(total / self.rows.sum())

    def cost_s(self, plan: Plan) -> float:
        """Return the CPU seconds of a plan's retrainings."""
        return float(sum(self.cpu_s[fit] for fit in plan[1:]))


def walk(past: Past, decide: Decide) -> Plan:
    """Return the plan of a policy that is asked at every decision, from the second fit on."""
    plan = [0]
    for fit in range(1, past.fits):
        if decide(plan[-1], fit):
            plan.append(fit)
    return tuple(plan)


def even(past: Past, retrainings: int) -> Plan:
    """Return the plan whose retrainings divide the decisions evenly."""
    check_count(past, retrainings)
    step = past.fits / (retrainings + 1)
    return (0, *(int(np.floor(step * number + 0.5)) for number in range(1, retrainings + 1)))


def random_plans(past: Past, retrainings: int, *, draws: int = DRAWS, seed: int = 0) -> list[Plan]:
    """Return plans with retrainings at random decisions, each set of dates as likely as any other."""
    check_count(past, retrainings)
    stream = np.random.default_rng([seed, retrainings])
    found = (stream.choice(np.arange(1, past.fits), retrainings, replace=False) for _ in range(draws))
    return [(0, *sorted(int(fit) for fit in fits)) for fits in found]


def best(past: Past, retrainings: int) -> Plan:
    """Return the plan of least log loss with so many retrainings: what nobody could know before.

    By dynamic programming over the last fit of a plan: F^2 steps a retraining.
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


def from_scores(
    task: Task, scores: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], cpu_s: Mapping[str, float]
) -> Past:
    """Return what fits could have said, from their scores.

    Args:
        task: of the product.
        scores: by cutoff, then by key in order: answers and labels of its labelled rows.
        cpu_s: by cutoff.

    Raises:
        ValueError: fits that disagree about a label.
    """
    cutoffs = sorted(scores, key=lambda cutoff: -len(scores[cutoff]))
    widest = scores[cutoffs[0]]
    keys = tuple(widest)
    for cutoff in cutoffs:
        wrong = [key for key, (_, labels) in scores[cutoff].items() if not np.array_equal(labels, widest[key][1])]
        if wrong:
            raise ValueError(f"the fits of {cutoffs[0]} and {cutoff} were scored on other labels of {wrong[0]}.")
    return Past(
        task=task,
        keys=keys,
        labels=tuple(labels for _, labels in widest.values()),
        starts=tuple(len(keys) - len(scores[cutoff]) for cutoff in cutoffs),
        said=tuple(tuple(said for said, _ in scores[cutoff].values()) for cutoff in cutoffs),
        cpu_s=tuple(cpu_s[cutoff] for cutoff in cutoffs),
    )


def check_count(past: Past, retrainings: int) -> None:
    """Refuse a number of retrainings that the decisions cannot hold."""
    if not 0 <= retrainings < past.fits:
        raise ValueError(f"{retrainings} retrainings among {past.fits - 1} decisions; expected 0 to {past.fits - 1}.")
