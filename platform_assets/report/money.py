"""Say what a product costs: what each accepted model did, its tries, and CPU seconds by stage.

Belongs here: the section about cost. Does not belong here: the others (`sections`), reading (`facts`), or the sums
(`compute.costs`, `compute.accepted`).
"""

from __future__ import annotations

from platform_assets.compute import accepted
from platform_assets.report import markup as html
from platform_assets.report.facts import Facts
from platform_assets.report.markup import Html

MOST_ATTEMPTS = 16
MOST_MODELS = 12


def section(facts: Facts) -> Html:
    """Return what accepted models cost, the newest tries, and CPU seconds by stage."""
    most = max(facts.cpu_s.values(), default=0.0) or 1.0
    rows = [(stage, f"{value:,.1f}", html.bar(value / most)) for stage, value in facts.cpu_s.items()]
    return html.section(
        "Cost",
        *_models(facts),
        *_tries(facts),
        html.Html("<h3>CPU seconds by stage</h3>"),
        html.table(("stage", "CPU s", ""), rows, numbers=("CPU s",)),
    )


def _models(facts: Facts) -> list[Html]:
    if facts.attempts.is_empty():
        return [html.paragraph("No training has been tried yet.")]
    spent = accepted.models(accepted.bought(facts.attempts, facts.releases), facts.releases).reverse()
    most = spent["usd"].max() or 1.0
    columns = ("model", "cutoff", "USD", "", "trainings", "tries", "lost or failed")
    rows = [
        (
            "open, since the newest" if each["release"] is None else f"release {each['release']}",
            each["cutoff"],
            f"{each['usd']:.4f}",
            html.bar(each["usd"] / most, longest_px=120),
            each["trainings"],
            each["attempts"],
            f"{each[accepted.LOST] + each[accepted.FAILED]:.4f}",
        )
        for each in spent.head(MOST_MODELS).iter_rows(named=True)
    ]
    return [
        html.paragraph(
            "An accepted model cost all that was tried since the one before it: also tries that failed, and trainings "
            "whose models lost their evaluation.",
            kind="muted",
        ),
        html.table(columns, rows, numbers=("USD", "trainings", "tries", "lost or failed")),
    ]


def _tries(facts: Facts) -> list[Html]:
    rows = [
        (
            *(each[name] for name in ("cutoff", "step", "profile", "reason")),
            "" if each["cpu_s"] is None else f"{each['cpu_s']:,.0f}",
            f"{each['wall_s'] or 0:,.0f}",
            f"{each['usd']:.4f}",
        )
        for each in facts.attempts.head(MOST_ATTEMPTS).iter_rows(named=True)
    ]
    if not rows:
        return []
    saved = facts.attempts["saving_usd"].sum()
    columns = ("cutoff", "step", "profile", "ended", "CPU s", "wall s", "USD")
    return [
        html.Html("<h3>Tries</h3>"),
        html.paragraph(
            f"{html.counted(len(facts.attempts), 'attempt')} cost {facts.cost_usd:.4f} USD at list prices"
            + (f", {saved:.4f} less than on demand." if saved > 0 else "."),
            kind="muted",
        ),
        *(
            html.paragraph(f"For cutoff {each.cutoff}, in {each.month} {each.over} Allowed: {each.why}")
            for each in facts.overspendings
        ),
        html.table(columns, rows, numbers=("CPU s", "wall s", "USD")),
    ]
