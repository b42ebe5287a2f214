"""Enforce a product's monthly training budget: stop a launch that would exceed it, unless a person gives a reason.

Exports are never stopped: the training they finish is paid for. A decision postpones a training by the same sum.
"""

from dataclasses import replace

import dagster as dg
import polars as pl

from platform_assets.base import naming
from platform_assets.engine.balance import Balance
from platform_assets.engine.outside import Budget
from platform_assets.launch import budgets, costs, prices
from platform_assets.product.spec import Product
from platform_assets.store.history.attempts import frame
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.attempts import ATTEMPTS_SO_FAR, OVERSPENDINGS, SO_FAR, AttemptsSoFar, Overspending


class MonthlyBudget(Budget):
    """The budget that a product's `Retraining` states, at the list prices of profiles."""

    def check(self, spec: Product) -> None:
        """Refuse stated hours that exceed the longest possible training."""
        prices.check_hours(spec)

    def balance(self, spec: Product, attempts: pl.DataFrame, month: str) -> Balance:
        """Return what a month's attempts have cost, and what a training more would."""
        spent, following = costs.spent_usd(spec.grain, attempts, month), prices.next_training(spec, attempts)
        over = budgets.over_budget(spent, following, spec.retraining.monthly_budget_usd)
        return Balance(spent_usd=spent, next_usd=following.usd, over=over)

    def over(self, product: ProductStore, cutoff: str, under_way: int) -> str | None:
        """Return how far another step for a cutoff would exceed the month's budget; None if it would not.

        Args:
            under_way: how many such steps there are already; each is expected to cost what a training does.
        """
        spec, limit = product.spec, product.spec.retraining.monthly_budget_usd
        if limit is None:
            return None
        attempts, month = product.history.attempts(), _month(product, cutoff)
        following = prices.next_training(spec, attempts)
        # Steps that are under way have cost nothing yet on record.
        spent = costs.spent_usd(spec.grain, attempts, month) + under_way * following.usd
        over = budgets.over_budget(spent, following, limit)
        return None if over is None else f"in {month} {over}"

    def usd_of(self, cpu_s: float) -> float:
        """Return what CPU seconds cost at the list price of `cpu_small`."""
        return prices.usd_of(cpu_s)

    def allow(
        self, product: ProductStore, *, cutoff: str, fingerprint: str, reason: str, run_id: str
    ) -> Overspending | None:
        """Return normally when a training may be launched: None, or the record of a person's override of the budget.

        A finished fingerprint costs nothing and is always allowed. Attempts so far are cached, so that decisions do not
        read them one by one.

        Args:
            reason: a person's, for exceeding the budget; recorded only when the budget is exceeded.
            run_id: of the launching run.

        Raises:
            dagster.Failure: it would exceed the month's budget and there is no reason; the message has the amount.
        """
        spec, history = product.spec, product.history
        limit, records = spec.retraining.monthly_budget_usd, history.attempts_so_far()
        product.ledgers.of(ATTEMPTS_SO_FAR).overwrite(SO_FAR, AttemptsSoFar(attempts=[record for _, record in records]))
        if limit is None or history.checkpoint(fingerprint) is not None:
            return None
        attempts = frame(records)
        month = _month(product, cutoff)
        full, spent = prices.next_training(spec, attempts), costs.spent_usd(spec.grain, attempts, month)
        following = replace(full, usd=costs.remaining_usd(full.usd, attempts, fingerprint))
        over = budgets.over_budget(spent, following, limit)
        if over is None:
            return None
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
            spent_usd=round(spent, 6),
            next_usd=round(following.usd, 6),
            over_usd=round(spent + following.usd - limit, 6),
        )
        if not record.why:
            raise dg.Failure(
                f"the training of {spec.name} for cutoff {cutoff} is not launched: in {month} {over} To train "
                f"anyway, run {naming.job('retrain', spec.name)} with a reason as `over_budget_reason` in the config "
                "of checkpoint.",
                metadata=record.members(("budget_usd", "spent_usd", "next_usd", "over_usd")),
                allow_retries=False,
            )
        product.ledgers.of(OVERSPENDINGS).append(record)
        return record


def _month(product: ProductStore, cutoff: str) -> str:
    """Return the month that a cutoff is charged to."""
    return costs.month_of(product.spec.grain, cutoff) or f"{product.now:%Y-%m}"
