"""Say which of the live model's promises fail by a product's rules, and in words.

Belongs here: the numbers that a decision reads. Does not belong here: the tests (`compute.promises`), or
what is decided (`compute.policy`). Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_assets.records.decisions import Performance
from platform_assets.records.performance import Promised, Tested

if TYPE_CHECKING:
    from platform_assets.product.monitoring import Retraining

Tests = Mapping[str, Tested]
"""Each test of the family by name."""


def judged(seen: Promised, policy: Retraining) -> Performance:
    """Return the numbers of `compute.performance.against_promises`, judged by a product's rules."""
    return Performance(
        **seen.members(("keys", "log_loss", "excess", "p_value", "tests")),
        expected=seen.expected_log_loss,
        failing=failing(seen.tests or {}, policy),
    )


def failing(tests: Tests, policy: Retraining) -> tuple[str, ...]:
    """Return the names of the tests that fail: beyond chance as one family, by an effect that matters, to the bad side.

    A test without a margin of its own has the product's `min_excess_loss`.
    """
    return tuple(name for name, each in tests.items() if _is_failing(each, policy))


def _is_failing(test: Tested, policy: Retraining) -> bool:
    if test.p_adjusted is None or test.effect is None or test.p_adjusted > 1 - policy.confidence:
        return False
    margin = policy.min_excess_loss if test.margin is None else test.margin
    distance = test.side * test.effect if test.side else abs(test.effect)
    return bool(distance >= margin)


def words_of(tests: Tests, policy: Retraining) -> str:
    """Say what the family of tests shows, as a clause; nothing where there are none, as in records of older code."""
    if failed := failing(tests, policy):
        parts = (f"{name.replace('_', ' ')}: {_numbers_of(tests[name])}" for name in failed)
        return f"the model does not keep what its answers promise ({'; '.join(parts)})"
    adjusted = [each.p_adjusted for each in tests.values() if each.p_adjusted is not None]
    if adjusted:
        return f"none of {len(tests)} tests of what its answers promise fails (least adjusted p = {min(adjusted):.4f})"
    return "what its answers promise cannot be tested on these keys" if tests else ""


def _numbers_of(test: Tested) -> str:
    return f"{test.words} is {test.effect:+.4f}, adjusted p = {test.p_adjusted:.4f}"
