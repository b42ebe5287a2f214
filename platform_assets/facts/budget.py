"""Keep a product's trainings within its month's money: stop a launch that would exceed it, or take a person's reason.

Belongs here: reading what a month's attempts cost, and the stop before a launch. Does not belong here: the sums
(`compute.costs`), or the decision to train (`compute.policy`, which waits by the same sum).

An attempt is charged to the month of its cutoff, because that is what a decision is made for; batches have no months,
so theirs is the wall clock's. Exports count, and are not stopped: what they finish is paid for. Backtests are charged
to no month.
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
    own = pl.col("cutoff").replace_strict(months, return_dtype=pl.String)
    return attempts.with_columns(month=own.fill_null(pl.col("began_at_utc").str.head(7)))


def _month(spec: ProductSpec, cutoff: str) -> str | None:
    """Return a cutoff's month, or None for batches."""
    return None if spec.grain.instant_after(cutoff) is None else f"{spec.grain.instant(cutoff):%Y-%m}"


def spent_usd(spec: ProductSpec, attempts: pl.DataFrame, month: str) -> float:
    """Return what the attempts cost that are charged to a month (`2013-03`)."""
    return costs.total_usd(with_month(spec, attempts).filter(month=month))


def check_budget(product: Product, *, cutoff: str, fingerprint: str, reason: str, run_id: str) -> Overspending | None:
    """Return when a training may be launched; None, or the record of a person's word that allows it over budget.

    A finished fingerprint costs nothing and is always allowed.

    Args:
        cutoff, fingerprint: of the training.
        reason: a person's, for exceeding the budget; recorded when it does, of no effect when it does not.
        run_id: whose launch.

    Raises:
        dagster.Failure: it would exceed the month's budget and nobody gave a reason; says by how much.
    """
    spec = product.spec
    limit, history = spec.retraining.monthly_budget_usd, product.history
    if limit is None or history.is_trained(fingerprint):
        return None
    found = history.attempts()
    month = _month(spec, cutoff) or f"{product.now:%Y-%m}"
    whole, spent = money.following(spec, found), spent_usd(spec, found, month)
    following = replace(whole, usd=costs.remaining_usd(whole.usd, found, fingerprint))
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
            f"the training of {spec.name} for cutoff {cutoff} is not launched: in {month} {over} To train all the "
            f"same, run {naming.job('retrain', spec.name)} with a reason as `over_budget_reason` in the config of "
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
