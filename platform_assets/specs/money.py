"""Say what a product's next training may cost, before and after one was measured.

Belongs here: the first training of a size, from profile, deadline and tries, or from the hours that the spec states.
Does not belong here: what attempts did cost (`compute.costs`), or stopping a launch (`facts.budget`).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from platform_assets.compute import budgets
from platform_assets.compute.budgets import Expected
from platform_assets.profiles import profile
from platform_assets.retries import paid_tries

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.specs.base import ProductSpec


def following(spec: ProductSpec, attempts: pl.DataFrame | None = None) -> Expected:
    """Return what the next training may cost: as much as the newest finished one of this size.

    Where none of this size has finished, the stated hours count, or else all tries that may be paid for, each up to its
    deadline. Stated hours that cost more than what was measured count too: a person knows what changed.

    Args:
        attempts: by `history.attempts.SCHEMA`; None before there are any.
    """
    measured = None if attempts is None else _measured(spec, attempts)
    stated = _stated(spec)
    if measured is None:
        return stated or _most(spec)
    return stated if stated is not None and stated.usd > measured else Expected(usd=measured)


def over_budget(spec: ProductSpec) -> str | None:
    """Return by how much the first training of this size would exceed a whole month's budget, as a sentence."""
    return budgets.over_budget(0.0, following(spec), spec.retraining.monthly_budget_usd)


def check_hours(spec: ProductSpec) -> None:
    """Refuse hours that no training of this size can last."""
    hours, most_h = spec.retraining.expected_hours, _hours(spec)
    if hours is not None and hours > most_h:
        raise ValueError(
            f"{spec.name}: Retraining.expected_hours is {hours}; a training on {spec.training.profile} is over after "
            f"{most_h:g} h at the latest, with all its tries. State fewer hours, or another profile."
        )


def _measured(spec: ProductSpec, attempts: pl.DataFrame) -> float | None:
    from platform_assets.compute import costs  # polars loads with it

    return costs.next_usd(attempts, spec.training.profile)


def _stated(spec: ProductSpec) -> Expected | None:
    hours, size = spec.retraining.expected_hours, profile(spec.training.profile)
    if hours is None:
        return None
    return Expected(
        usd=hours * size.usd_per_hour,
        why=f"Retraining.expected_hours is {hours:g}, at {size.usd_per_hour:g} USD an hour",
    )


def _most(spec: ProductSpec) -> Expected:
    size = profile(spec.training.profile)
    tries = [(each, len(list(same))) for each, same in groupby(paid_tries(size))]
    parts = (
        f"{each.usd_per_hour:g} USD an hour x {each.deadline_s / 3600:g} h x {count} tries" for each, count in tries
    )
    return Expected(
        usd=sum(each.usd_per_hour * each.deadline_s / 3600 * count for each, count in tries),
        why=f"no training on {size.name} has finished yet: {' and '.join(parts)}",
        advice=f"If it takes less, state Retraining.expected_hours in platform_assets/specs/{spec.name}.py.",
    )


def _hours(spec: ProductSpec) -> float:
    return sum(each.deadline_s for each in paid_tries(profile(spec.training.profile))) / 3600
