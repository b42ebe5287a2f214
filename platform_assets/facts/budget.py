"""Enforce a product's monthly training budget: stop a launch that would exceed it, unless a person gives a reason.

An attempt is charged to the month of its cutoff, because a decision is made for that cutoff. Batches have no months, so
the wall clock's month counts. Exports count, and are never stopped: the training they finish is paid for. Backtests are
charged to no month. `compute.policy` uses the same sum to postpone a training.
"""

from dataclasses import replace

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import budgets, costs
from platform_assets.handle import Product
from platform_assets.records.attempts import OVERSPENDINGS, Overspending
from platform_assets.specs import money
from platform_assets.specs.base import ProductSpec


def with_month(spec: ProductSpec, attempts: pl.DataFrame) -> pl.DataFrame:
    """Add the `month` that attempts are charged to: their cutoff's, or for batches the wall clock's."""
    assert not attempts["cutoff"].has_nulls()  # every record has one
    months = {cutoff: _month(spec, cutoff) for cutoff in attempts["cutoff"].unique()}
    month = pl.col("cutoff").replace_strict(months, return_dtype=pl.String)
    return attempts.with_columns(month=month.fill_null(pl.col("began_at_utc").str.head(7)))


def _month(spec: ProductSpec, cutoff: str) -> str | None:
    """Return a cutoff's month, or None for batches."""
    return None if spec.grain.instant_after(cutoff) is None else f"{spec.grain.instant(cutoff):%Y-%m}"


def spent_usd(spec: ProductSpec, attempts: pl.DataFrame, month: str) -> float:
    """Return the total cost of the attempts charged to a month (`2013-03`)."""
    return costs.total_usd(with_month(spec, attempts).filter(month=month))


def check_budget(product: Product, *, cutoff: str, fingerprint: str, reason: str, run_id: str) -> Overspending | None:
    """Return normally when a training may be launched: None, or the record of a person's override of the budget.

    A finished fingerprint costs nothing and is always allowed.

    Args:
        reason: a person's, for exceeding the budget; recorded only when the budget is exceeded.
        run_id: of the launching run.

    Raises:
        dagster.Failure: it would exceed the month's budget and there is no reason; the message has the amount.
    """
    spec = product.spec
    limit, history = spec.retraining.monthly_budget_usd, product.history
    if limit is None or history.is_trained(fingerprint):
        return None
    attempts = history.attempts()
    month = _month(spec, cutoff) or f"{product.now:%Y-%m}"
    full, spent = money.next_training(spec, attempts), spent_usd(spec, attempts, month)
    following = replace(full, usd=costs.remaining_usd(full.usd, attempts, fingerprint))
    over = budgets.over_budget(spent, following, limit)
    if over is None:
        return None
    numbers = {
        "budget_usd": limit,
        "spent_usd": round(spent, 6),
        "next_usd": round(following.usd, 6),
        "over_usd": round(spent + following.usd - limit, 6),
    }
    if not reason.strip():
        raise dg.Failure(
            f"the training of {spec.name} for cutoff {cutoff} is not launched: in {month} {over} To train "
            f"anyway, run {naming.job('retrain', spec.name)} with a reason as `over_budget_reason` in the config of "
            "checkpoint.",
            metadata=numbers,
            allow_retries=False,
        )
    record = Overspending(
        product=spec.name,
        cutoff=cutoff,
        fingerprint=fingerprint,
        month=month,
        why=reason.strip(),
        over=over,
        run_id=run_id,
        at_utc=product.now.isoformat(),
        budget_usd=limit,
        spent_usd=numbers["spent_usd"],
        next_usd=numbers["next_usd"],
        over_usd=numbers["over_usd"],
    )
    product.ledgers.of(OVERSPENDINGS).append(record)
    return record
