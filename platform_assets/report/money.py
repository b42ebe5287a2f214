"""The section about cost: accepted models, attempts, and CPU seconds per stage."""

from __future__ import annotations

from platform_assets.compute import accepted
from platform_assets.report.blocks import Bar, Block, Heading, Inline, Section, Table, paragraph
from platform_assets.report.facts import Facts
from platform_assets.wording import counted

MOST_ATTEMPTS = 16
MOST_MODELS = 12


def section(facts: Facts) -> Section:
    """Return what accepted models cost, the newest attempts, and CPU seconds per stage."""
    most = max(facts.cpu_s.values(), default=0.0) or 1.0
    rows = [(stage, f"{value:,.1f}", Bar(value / most)) for stage, value in facts.cpu_s.items()]
    stages = Table(about="CPU seconds per stage", columns=("stage", "CPU s", ""), rows=rows, numbers=("CPU s",))
    blocks = [*_models(facts), *_attempts(facts), Heading("CPU seconds per stage"), stages]
    return Section(title="Cost", blocks=blocks, link=facts.links.asset("cost"))


def _models(facts: Facts) -> list[Block]:
    if facts.attempts.is_empty():
        return [paragraph("No training was attempted yet.")]
    models = accepted.models(accepted.bought(facts.attempts, facts.releases), facts.releases).reverse()
    most = models["usd"].max() or 1.0
    columns = ("model", "cutoff", "USD", "", "trainings", "attempts", "lost or failed")
    rows = [
        (
            "open, since the newest" if model["release"] is None else f"release {model['release']}",
            model["cutoff"],
            f"{model['usd']:.4f}",
            Bar(model["usd"] / most, longest_px=120),
            model["trainings"],
            model["attempts"],
            f"{model[accepted.LOST] + model[accepted.FAILED]:.4f}",
        )
        for model in models.head(MOST_MODELS).iter_rows(named=True)
    ]
    numbers = ("USD", "trainings", "attempts", "lost or failed")
    return [
        paragraph(
            "The cost of an accepted model covers every attempt since the one before it, including failed attempts and "
            "trainings whose models did not pass their evaluation.",
            kind="muted",
        ),
        Table(about="cost of accepted models", columns=columns, rows=rows, numbers=numbers),
    ]


def _attempts(facts: Facts) -> list[Block]:
    shown = facts.attempts.head(MOST_ATTEMPTS).iter_rows(named=True)
    rows: list[tuple[Inline, ...]] = [
        (
            *(attempt[name] for name in ("cutoff", "step", "profile")),
            facts.links.run(facts.runs.get(attempt["id"]), str(attempt["reason"])),
            "" if attempt["cpu_s"] is None else f"{attempt['cpu_s']:,.0f}",
            f"{attempt['wall_s'] or 0:,.0f}",
            f"{attempt['usd']:.4f}",
        )
        for attempt in shown
    ]
    if not rows:
        return []
    saved = facts.attempts["saving_usd"].sum()
    columns = ("cutoff", "step", "profile", "ended", "CPU s", "wall s", "USD")
    total = f"{counted(len(facts.attempts), 'attempt')} cost {facts.cost_usd:.4f} USD at list prices"
    return [
        Heading("Attempts"),
        paragraph(total + (f", {saved:.4f} less than on demand." if saved > 0 else "."), kind="muted"),
        *(
            paragraph(f"For cutoff {over.cutoff}, in {over.month} {over.over} Allowed: {over.why}")
            for over in facts.overspendings
        ),
        Table(about="attempts", columns=columns, rows=rows, numbers=("CPU s", "wall s", "USD")),
    ]
