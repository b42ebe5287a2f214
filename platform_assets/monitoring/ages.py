"""Count how old a product's newest training is in keys, and by how many it is overdue; say so in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.base.wording import counted

if TYPE_CHECKING:
    from platform_assets.monitoring.policy import Facts
    from platform_assets.product.monitoring import Retraining
    from platform_assets.store.records.decisions import Numbers


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


def too_old(age_keys: int, max_age: int) -> str:
    """Return the reason to train that the calendar gives."""
    return f"the last training is {age_keys} keys old; the limit is {max_age}."


def overdue(numbers: Numbers) -> str:
    """Return how old the newest training is, and by how much it is overdue, as a clause."""
    age = "no model was ever trained"
    if numbers.training_age_keys is not None:
        age = f"the newest training is {counted(numbers.training_age_keys, 'key')} old"
    live = numbers.model_age_keys
    serving = "" if live is None or live == numbers.training_age_keys else f", the live model {live}"
    keys = counted(numbers.overdue_keys or 0, "key")
    return f"{age}{serving}: {keys} beyond max_age ({numbers.max_age_keys}) and one decision interval"


def other_reasons(numbers: Numbers, reasons: Sequence[str]) -> tuple[str, ...]:
    """Return the reasons of a decision without the age, for a sentence that says it already."""
    age = None if numbers.training_age_keys is None else too_old(numbers.training_age_keys, numbers.max_age_keys)
    return tuple(reason for reason in reasons if reason != age)
