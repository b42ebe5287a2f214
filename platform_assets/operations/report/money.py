"""The section about cost: months and the newest attempts."""

from __future__ import annotations

import polars as pl

from platform_assets.base.wording import counted
from platform_assets.launch import costs
from platform_assets.operations.report.blocks import Block, Heading, Inline, Section, Table, paragraph
from platform_assets.operations.status.facts import Reported
from platform_assets.store.records.attempts import FINISHED, TRAIN

MOST_ATTEMPTS = 16
MOST_MONTHS = 12


def section(facts: Reported) -> Section:
    """Return what months and the newest attempts cost."""
    if facts.attempts.is_empty():
        return Section(title="Cost", blocks=[paragraph("No training was attempted yet.")])
    beyond = (
        paragraph(f"For cutoff {over.cutoff}, in {over.month} {over.over} Allowed: {over.why}")
        for over in facts.overspendings
    )
    saved, limit = facts.attempts["saving_usd"].sum(), facts.spec.retraining.monthly_budget_usd
    total = (
        f"{counted(len(facts.attempts), 'attempt')} cost {costs.total_usd(facts.attempts):.4f} USD at list prices"
        + (f", {saved:.4f} less than on demand." if saved > 0 else ".")
        + ("" if limit is None else f" A month's budget is {limit:.2f} USD.")
    )
    # Lost is what was repeated or never finished.
    is_done = (pl.col("reason") == FINISHED).any().over("work")
    lost_usd = pl.when(is_done).then(pl.col("usd") * pl.col("lost_share")).otherwise("usd")
    is_training = (pl.col("reason") == FINISHED) & (pl.col("step") == TRAIN)
    months = (
        costs.with_month(facts.spec.grain, facts.attempts.with_columns(lost_usd=lost_usd))
        .group_by("month")
        .agg(pl.len(), pl.col("work").filter(is_training).n_unique(), pl.col("usd", "lost_usd").sum())
        .sort("month", descending=True)
    )
    columns = ("month", "attempts", "trainings", "USD", "lost or failed")
    by_month = [
        (month, attempts, trainings, f"{usd:.4f}", f"{lost:.4f}")
        for month, attempts, trainings, usd, lost in months.head(MOST_MONTHS).iter_rows()
    ]
    table = Table(about="cost by month", columns=columns, rows=by_month, numbers=columns[1:], is_stacked=True)
    rows: list[tuple[Inline, ...]] = [
        (
            *(attempt[name] for name in ("cutoff", "step", "profile", "reason")),
            "" if attempt["cpu_s"] is None else f"{attempt['cpu_s']:,.0f}",
            f"{attempt['wall_s'] or 0:,.0f}",
            f"{attempt['usd']:.4f}",
        )
        for attempt in facts.attempts.head(MOST_ATTEMPTS).iter_rows(named=True)
    ]
    names = ("cutoff", "step", "profile", "ended", "CPU s", "wall s", "USD")
    newest = Table(about="attempts", columns=names, rows=rows, numbers=("CPU s", "wall s", "USD"))
    blocks: list[Block] = [paragraph(total, kind="muted"), table, Heading("Attempts"), *beyond, newest]
    return Section(title="Cost", blocks=blocks)
