"""Count how old a product's newest training is, and by how much it is beyond its limit.

Belongs here: ages in keys. Does not belong here: what follows from them (`compute.policy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_assets.compute.policy import Facts
    from platform_assets.product.monitoring import Retraining


def age(facts: Facts) -> int | None:
    """Return how many keys ago the newest training saw its last; None before the first."""
    return None if facts.last_trained is None else facts.place + 1 - facts.last_trained


def overdue_keys(facts: Facts, policy: Retraining) -> int | None:
    """Return by how many keys the newest training is beyond `max_age` and one more decision; None when it is not.

    Before the first training, age counts from the key at which one was possible. At the grain's last key none is due.
    """
    age_keys = age(facts)
    if age_keys is None:
        age_keys = facts.place + 1 - facts.min_keys - facts.label_delay
    beyond = age_keys - policy.max_age - policy.decide_every
    return beyond if beyond > 0 and facts.cutoff is not None else None
