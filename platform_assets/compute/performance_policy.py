"""Say which of the live model's promises fail by a product's rules, and in words.

Belongs here: `Performance`, the numbers that a decision reads. Does not belong here: the tests (`compute.promises`), or
what is decided (`compute.policy`). Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_assets.product.monitoring import Retraining

Tests = Mapping[str, Mapping[str, Any]]
"""Each test of the family by name, as `promises.Tested`."""


@dataclass(frozen=True, kw_only=True)
class Performance:
    """How the live model compares with what its own answers promise.

    Attributes:
        keys: how many labelled keys were answered by it.
        log_loss, expected: means over their rows, in nats.
        excess: the one minus the other.
        p_value: of an excess this large if the model were as good as it says, by itself; None from one key.
        tests: the whole family.
        failing: the names of the tests that fail.
    """

    keys: int
    log_loss: float
    expected: float
    excess: float
    p_value: float | None
    tests: Tests = field(default_factory=dict)
    failing: tuple[str, ...] = ()

    @classmethod
    def of(cls, seen: Mapping[str, Any], policy: Retraining) -> Performance:
        """Return the numbers of `compute.performance.against_promises`, judged by a product's rules."""
        return cls(
            keys=seen["keys"],
            log_loss=seen["log_loss"],
            expected=seen["expected_log_loss"],
            excess=seen["excess"],
            p_value=seen["p_value"],
            tests=seen["tests"],
            failing=failing(seen["tests"], policy),
        )

    def document(self) -> dict[str, Any]:
        """Return it as plain JSON values. Records of older code have neither `tests` nor `failing`."""
        return {**asdict(self), "failing": list(self.failing)}


def failing(tests: Tests, policy: Retraining) -> tuple[str, ...]:
    """Return the names of the tests that fail: beyond chance as one family, by an effect that matters, to the bad side.

    A test without a margin of its own has the product's `min_excess_loss`.
    """
    return tuple(name for name, each in tests.items() if _is_failing(each, policy))


def _is_failing(test: Mapping[str, Any], policy: Retraining) -> bool:
    if test["p_adjusted"] is None or test["p_adjusted"] > 1 - policy.confidence:
        return False
    margin = policy.min_excess_loss if test["margin"] is None else test["margin"]
    distance = test["side"] * test["effect"] if test["side"] else abs(test["effect"])
    return bool(distance >= margin)


def words_of(tests: Tests, policy: Retraining) -> str:
    """Say what the family of tests shows, as a clause; nothing where there are none, as in records of older code."""
    if failed := failing(tests, policy):
        parts = (f"{name.replace('_', ' ')}: {_numbers_of(tests[name])}" for name in failed)
        return f"the model does not keep what its answers promise ({'; '.join(parts)})"
    adjusted = [each["p_adjusted"] for each in tests.values() if each["p_adjusted"] is not None]
    if adjusted:
        return f"none of {len(tests)} tests of what its answers promise fails (least adjusted p = {min(adjusted):.4f})"
    return "what its answers promise cannot be tested on these keys" if tests else ""


def _numbers_of(test: Mapping[str, Any]) -> str:
    return f"{test['words']} is {test['effect']:+.4f}, adjusted p = {test['p_adjusted']:.4f}"
