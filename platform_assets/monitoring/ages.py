"""Count how old a product's newest training is in keys, and by how many it is overdue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_assets.monitoring.policy import Facts
    from platform_assets.product.monitoring import Retraining


def age(facts: Facts) -> int | None:
    """Return how many keys ago the newest training saw its last key; None before the first training."""
    return None if facts.last_trained is None else facts.index + 1 - facts.last_trained


def overdue_keys(facts: Facts, policy: Retraining) -> int | None:
    """Return by how many keys the newest training exceeds `max_age` plus one decision interval; None if it does not.

    Before the first training, age counts from the first key at which one was possible. At the grain's last key nothing
    is overdue, because there is no cutoff after it.
    """
    age_keys = age(facts)
    if age_keys is None:
        age_keys = facts.index + 1 - facts.min_keys - facts.label_delay
    excess = age_keys - policy.max_age - policy.decide_every
    return excess if excess > 0 and facts.cutoff is not None else None
