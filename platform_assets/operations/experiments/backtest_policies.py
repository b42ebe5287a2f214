"""Decide when each policy of a backtest retrains: by calendar, by performance, by drift, or like the product itself.

Measuring what the decisions were worth is `operations.experiments.backtest_arithmetic`; the product's policy is
`monitoring.policy`.

A decision falls on the last key before a cutoff. It sees features up to that key, and labels up to `label_delay` keys
earlier, of keys that the champion itself answered. It cannot see faults (held keys are not in the replay), money
(budgets are per wall-clock month), or verdicts (every fit is released and answers from its cutoff).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets.evaluation import paired
from platform_assets.monitoring import measured as performance_of
from platform_assets.monitoring import performance_policy, policy
from platform_assets.operations.experiments.backtest_arithmetic import Decide, Past, Plan, walk

if TYPE_CHECKING:
    from platform_assets.monitoring.drift_index import Index
    from platform_assets.product.monitoring import Retraining
    from platform_assets.product.spec import Product

CALENDARS = (2, 4, 8)
"""Ages in decisions: with one decision per week, two, four and eight weeks."""
OWN = "own policy"
Drift = Callable[[int, int], "Index"]
"""`(champion, fit) -> index` of the newest window, at the decision that could produce `fit`."""
_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)


def plans(past: Past, spec: Product, index_of: Drift) -> dict[str, Plan]:
    """Return what every policy would have done, by the name shown in tables.

    Args:
        index_of: called only for policies that look at drift, because it is expensive.
    """
    rules, delay = spec.retraining, spec.label_delay
    ages = [rules.decide_every * count for count in CALENDARS]
    policies: dict[str, Decide] = {
        "never": never,
        **{f"every {age} keys": calendar(past, age) for age in reversed(ages)},
        "performance": performance(past, rules, label_delay=delay),
        "drift": drift(index_of),
        OWN: own(past, rules, index_of, label_delay=delay),
        f"every {rules.decide_every} keys": always,
    }
    return {name: walk(past, decide) for name, decide in policies.items()}


def never(_champion: int, _fit: int) -> bool:
    """Return False: the first release answers forever."""
    return False


def always(_champion: int, _fit: int) -> bool:
    """Return True: train at every decision."""
    return True


def calendar(past: Past, keys: int) -> Decide:
    """Return the policy that trains once the champion's cutoff is at least `keys` keys old."""
    if keys < 1:
        raise ValueError(f"a calendar of {keys} keys; expected at least 1.")
    return lambda champion, fit: past.starts[fit] - past.starts[champion] >= keys


def performance(past: Past, rules: Retraining, *, label_delay: int) -> Decide:
    """Return the policy that trains when the champion fails the tests of its promises by the product's rules."""

    def decide(champion: int, fit: int) -> bool:
        measured = performance_at(past, champion, fit, rules, label_delay=label_delay)
        return measured is not None and bool(measured.failing)

    return decide


def drift(index_of: Drift) -> Decide:
    """Return the policy that trains when the newest window drifts from the champion's training keys."""
    return lambda champion, fit: index_of(champion, fit).is_drift


def own(past: Past, rules: Retraining, index_of: Drift, *, label_delay: int) -> Decide:
    """Return the product's own policy: `monitoring.policy.decide` at every decision, with no faulty keys."""
    rules = replace(rules, monthly_budget_usd=None)

    def decide(champion: int, fit: int) -> bool:
        # The index is the expensive part, and a reason to train only if the spec says so.
        index = index_of(champion, fit) if rules.is_drift_enough else None
        facts = policy.Facts(
            key=past.keys[past.starts[fit] - 1],
            index=past.starts[fit] - 1,
            cutoff=past.keys[past.starts[fit]],
            superseded_at=None,
            has_newer=False,
            anchor=past.starts[fit] - 1,
            last_judged=None,
            live_cutoff=past.starts[champion],
            last_trained=past.starts[champion],
            pending_cutoff=None,
            usable_keys=1,
            min_keys=1,
            health=policy.Health(
                verdict="drift" if index is not None and index.is_drift else "fine",
                index=None if index is None else index.mean_psi,
                percentile=None if index is None else index.percentile,
            ),
            performance=performance_at(past, champion, fit, rules, label_delay=label_delay),
        )
        return policy.decide(facts, rules, _WHENEVER).action == policy.RETRAIN

    return decide


def performance_at(
    past: Past, champion: int, fit: int, rules: Retraining, *, label_delay: int
) -> policy.Performance | None:
    """Return the champion's performance as known at the decision that could produce `fit`; None below two keys."""
    end = past.starts[fit] - label_delay
    first = max(past.starts[champion], end - rules.performance_window)
    if sum(1 for count in past.rows[first:end] if count) < paired.FEWEST_KEYS:
        return None
    measured = performance_of.assess_answers(*past.scored(champion, first, end), past.measures)
    return performance_policy.judge(measured, rules)
