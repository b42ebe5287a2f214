"""Say how old a product's newest training is, in one place for decisions, alerts and status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.base.wording import counted

if TYPE_CHECKING:
    from platform_assets.store.records.decisions import Numbers


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
