"""Enforce a product's monthly training budget: stop a launch that would exceed it, unless a person gives a reason.

Exports are never stopped: the training they finish is paid for. `compute.policy` uses the same sum, `costs.spent_usd`,
to postpone a training.
"""

from dataclasses import replace

import dagster as dg

from platform_assets import naming
from platform_assets.compute import budgets, costs
from platform_assets.handle import Product
from platform_assets.history.attempts import frame
from platform_assets.records.attempts import ATTEMPTS_SO_FAR, OVERSPENDINGS, SO_FAR, AttemptsSoFar, Overspending
from platform_assets.specs import money


def check_budget(product: Product, *, cutoff: str, fingerprint: str, reason: str, run_id: str) -> Overspending | None:
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
    month = costs.month_of(spec.grain, cutoff) or f"{product.now:%Y-%m}"
    full, spent = money.next_training(spec, attempts), costs.spent_usd(spec.grain, attempts, month)
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
            f"anyway, run {naming.job('retrain', spec.name)} with a reason as `over_budget_reason` in the config of "
            "checkpoint.",
            metadata=record.members(("budget_usd", "spent_usd", "next_usd", "over_usd")),
            allow_retries=False,
        )
    product.ledgers.of(OVERSPENDINGS).append(record)
    return record
