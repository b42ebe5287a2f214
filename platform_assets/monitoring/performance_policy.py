"""Decide by a product's rules which of the live model's promises fail, and describe the result.

The tests are `evaluation.promises`; the decision is `monitoring.policy`. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_assets.store.records.decisions import Performance
from platform_assets.store.records.performance import Promised, Tested

if TYPE_CHECKING:
    from platform_assets.product.monitoring import Retraining

Tests = Mapping[str, Tested]
"""The tests of the family, by name."""


def judge(measured: Promised, policy: Retraining) -> Performance:
    """Apply a product's rules to the numbers of `monitoring.measured.assess_answers`."""
    return Performance(
        **measured.members(("keys", "log_loss", "excess", "p_value", "tests")),
        expected=measured.expected_log_loss,
        failing=failing(measured.tests, policy),
    )


def failing(tests: Tests, policy: Retraining) -> tuple[str, ...]:
    """Return the names of failing tests: significant as one family, with an effect that matters, in the bad direction.

    A test without its own margin uses the product's `min_excess_loss`.
    """
    names = []
    for name, test in tests.items():
        if test.p_adjusted is None or test.effect is None or test.p_adjusted > 1 - policy.confidence:
            continue
        distance = test.side * test.effect if test.side else abs(test.effect)
        if distance >= (policy.min_excess_loss if test.margin is None else test.margin):
            names.append(name)
    return tuple(names)


def describe(tests: Tests, policy: Retraining) -> str:
    """Describe the result of the tests in a clause; empty if there are none."""
    if failed := failing(tests, policy):
        parts = (
            f"{name.replace('_', ' ')}: {test.words} is {test.effect:+.4f}, adjusted p = {test.p_adjusted:.4f}"
            for name in failed
            for test in [tests[name]]
        )
        return f"outcomes contradict the model's answers ({'; '.join(parts)})"
    adjusted = [test.p_adjusted for test in tests.values() if test.p_adjusted is not None]
    if adjusted:
        return f"none of {len(tests)} tests of the model's answers fails (smallest adjusted p = {min(adjusted):.4f})"
    return "the model's answers cannot be tested on these keys" if tests else ""
