"""The section about cost: months with their accepted models, the newest attempts, and CPU seconds per stage."""

from __future__ import annotations

import polars as pl

from platform_assets.base.wording import counted
from platform_assets.launch import costs
from platform_assets.operations import accepted
from platform_assets.operations.report.blocks import Bar, Block, Heading, Inline, Section, Table, paragraph
from platform_assets.operations.report.facts import Facts
from platform_assets.store.records.attempts import TRIAL

MOST_ATTEMPTS = 16
MOST_MONTHS = 12


def section(facts: Facts) -> Section:
    """Return what months and accepted models cost, the newest attempts, and CPU seconds per stage."""
    most = max(facts.cpu_s.values(), default=0.0) or 1.0
    rows = [(stage, f"{value:,.1f}", Bar(value / most)) for stage, value in facts.cpu_s.items()]
    stages = Table(about="CPU seconds per stage", columns=("stage", "CPU s", ""), rows=rows, numbers=("CPU s",))
    blocks: list[Block] = [paragraph("No training was attempted yet.")]
    if not facts.attempts.is_empty():
        beyond = (
            paragraph(f"For cutoff {over.cutoff}, in {over.month} {over.over} Allowed: {over.why}")
            for over in facts.overspendings
        )
        total = paragraph(_total(facts), kind="muted")
        blocks = [total, _months(facts), Heading("Attempts"), *beyond, _attempts(facts)]
    return Section(title="Cost", blocks=[*blocks, Heading("CPU seconds per stage"), stages])


def _total(facts: Facts) -> str:
    saved, limit = facts.attempts["saving_usd"].sum(), facts.spec.retraining.monthly_budget_usd
    return (
        f"{counted(len(facts.attempts), 'attempt')} cost {costs.total_usd(facts.attempts):.4f} USD at list prices"
        + (f", {saved:.4f} less than on demand. " if saved > 0 else ". ")
        + ("" if limit is None else f"A month's budget is {limit:.2f} USD. ")
        + "The cost of an accepted model covers every attempt since the one before it, including failed attempts and "
        "trainings whose models did not pass their evaluation, and no trial of a search."
    )


def _months(facts: Facts) -> Table:
    spent = costs.with_month(facts.spec.grain, accepted.attributed(facts.attempts, facts.releases))
    models: dict[str, list[str]] = {}
    for month, release, cutoff, usd in accepted.models(spent).rows():
        name = "open, since the newest" if release is None else f"release {release} ({cutoff})"
        models.setdefault(month, []).append(f"{name}: {usd:.4f}")
    for month, usd in spent.filter(step=TRIAL).group_by("month").agg(pl.col("usd").sum()).rows():
        models.setdefault(month, []).append(f"searches: {usd:.4f}")
    months = accepted.months(spent)
    most = months["usd"].max() or 1.0
    rows: list[tuple[Inline, ...]] = [
        (
            month["month"],
            month["attempts"],
            month["trainings"],
            f"{month['usd']:.4f}",
            Bar(month["usd"] / most, longest_px=120),
            f"{month['wasted_usd']:.4f}",
            "; ".join(models.get(month["month"], ())),
        )
        for month in months.head(MOST_MONTHS).iter_rows(named=True)
    ]
    return Table(
        about="cost by month",
        columns=("month", "attempts", "trainings", "USD", "", "lost or failed", "USD per accepted model"),
        rows=rows,
        numbers=("attempts", "trainings", "USD", "lost or failed"),
    )


def _attempts(facts: Facts) -> Table:
    rows: list[tuple[Inline, ...]] = [
        (
            *(attempt[name] for name in ("cutoff", "step", "profile")),
            facts.links.run(attempt["run_id"], str(attempt["reason"])),
            "" if attempt["cpu_s"] is None else f"{attempt['cpu_s']:,.0f}",
            f"{attempt['wall_s'] or 0:,.0f}",
            f"{attempt['usd']:.4f}",
        )
        for attempt in facts.attempts.head(MOST_ATTEMPTS).iter_rows(named=True)
    ]
    columns = ("cutoff", "step", "profile", "ended", "CPU s", "wall s", "USD")
    return Table(about="attempts", columns=columns, rows=rows, numbers=("CPU s", "wall s", "USD"))
