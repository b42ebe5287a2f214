"""Show what a product's attempts cost: numbers that Dagster plots over runs, tables and pictures.

Belongs here: from records to metadata, at most twenty numbers. Does not belong here: sums (`compute.costs`,
`compute.accepted`), or reading any record (`stages.cost`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from platform_assets.compute import accepted, costs
from platform_assets.compute.costs import Parts
from platform_assets.facts import budget
from platform_assets.records.attempts import Attempt, Excess
from platform_assets.show import cost_plots, values
from platform_assets.specs import money
from platform_assets.specs.base import ProductSpec

MOST_ATTEMPTS = 25
MOST_MODELS = 24
"""How many of the newest stand in the tables."""
DIGITS = 6
"""Money is kept to a millionth of a dollar: a local training costs hundredths of a cent."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """What is told.

    Attributes:
        attempts, backtests: each once, the newest first.
        releases: oldest first, with their numbers.
        overspendings: a person's words for launches over budget, oldest first.
    """

    attempts: Sequence[Attempt]
    backtests: Sequence[Attempt]
    releases: Sequence[accepted.Numbered]
    overspendings: Sequence[Excess]

    @property
    def everything(self) -> list[Attempt]:
        """Trainings, exports and backtests."""
        return [*self.attempts, *self.backtests]


def told(spec: ProductSpec, found: Records) -> values.Metadata:
    """Return the asset's metadata; what nobody has tried has no numbers."""
    if not found.attempts and not found.backtests:
        return {"attempts": 0, "what_it_shows": "Nothing has been tried yet, so nothing was spent."}
    models = accepted.spent(found.attempts, found.releases)
    shown: values.Metadata = {"what_it_shows": values.bullets(_said(found, models))}
    if months := by_month(spec, models):
        chart = cost_plots.money(months, models, budget_usd=spec.retraining.monthly_budget_usd)
        shown["money"] = values.image(chart, "Cost by month and by accepted model")
    shown["accepted_models"] = values.table([each.row() for each in reversed(models[-MOST_MODELS:])])
    if any(each.is_spot for each in found.everything):
        chart = cost_plots.spot(by_profile(found.everything))
        shown["spot"] = values.image(chart, "Paid, and the same seconds on demand")
    if waits := _waits(found):
        shown["waiting"] = values.image(cost_plots.waiting(waits), "Seconds from request to start")
    shown["by_step"] = values.table(_by_step(spec, found))
    shown["newest_attempts"] = values.table(_rows(found))
    return shown | numbers(spec, found, models)


def numbers(spec: ProductSpec, found: Records, models: Sequence[accepted.Spent]) -> dict[str, float | int]:
    """Return what Dagster plots; a number that is not known is left out, never zero."""
    everything = found.everything
    *closed, since = models
    bought, waits = _bought(models), [wait for _, wait, _ in _waits(found)]
    known: dict[str, float | int | None] = {
        "attempts": len(everything),
        "total_usd": costs.total_usd(everything),
        "on_demand_usd": sum(costs.on_demand_cost_usd(each) for each in everything),
        "spot_saving_usd": costs.spot_saving_usd(everything),
        "net_spot_saving_usd": costs.net_spot_saving_usd(everything),
        "models_accepted": len(closed),
        "newest_model_usd": closed[-1].usd if closed else None,
        "mean_model_usd": sum(each.usd for each in closed) / len(closed) if closed else None,
        "open_usd": since.usd,
        "rejected_usd": _bought(closed).rejected,
        "lost_usd": bought.lost,
        "lost_share": bought.lost / bought.total if bought.total else None,
        "steps_lost": costs.steps_lost(found.attempts),
        "failed_usd": bought.failed,
        "backtests_usd": costs.total_usd(found.backtests),
        "mean_waited_s": sum(waits) / len(waits) if waits else None,
        "longest_waited_s": max(waits, default=None),
        "next_usd": money.following(spec, found.attempts).usd,
        "monthly_budget_usd": spec.retraining.monthly_budget_usd,
    }
    return {name: round(value, DIGITS) for name, value in known.items() if value is not None}


def by_month(spec: ProductSpec, models: Sequence[accepted.Spent]) -> dict[str, Parts]:
    """Return what each month's money bought, as the budget counts months, in order."""
    months: dict[str, Parts] = {}
    for model in models:
        for attempt, bought in model.attempts:
            month = budget.month_of(spec, attempt)
            months[month] = months.get(month, Parts()) + bought
    return dict(sorted(months.items()))


def by_profile(attempts: Sequence[Attempt]) -> dict[str, tuple[float, float]]:
    """Return by profile what was paid, and what the same seconds would have cost on demand."""
    paid: dict[str, tuple[float, float]] = {}
    for each in attempts:
        name = each.profile or "unknown"
        own, other = paid.get(name, (0.0, 0.0))
        paid[name] = (own + costs.cost_usd(each), other + costs.on_demand_cost_usd(each))
    return dict(sorted(paid.items()))


def _said(found: Records, models: Sequence[accepted.Spent]) -> list[str]:
    *closed, since = models
    lines = []
    if closed:
        newest = closed[-1]
        lines.append(
            f"The newest accepted model (release {newest.release}, cutoff {newest.cutoff}) cost {newest.usd:.4f} USD: "
            f"{len(newest.attempts)} attempts, {newest.trainings} finished trainings since the model before it."
        )
    else:
        lines.append("No model was accepted yet: all that was spent is open.")
    lines.append(f"Since then {since.usd:.4f} USD were spent on what may become the next one.")
    bought = _bought(models)
    if bought.lost:
        lines.append(
            f"{bought.lost:.4f} USD ({bought.lost / bought.total:.1%}) went into work that was lost and done again."
        )
    saving = costs.spot_saving_usd(found.everything)
    if saving:
        net = costs.net_spot_saving_usd(found.everything)
        lines.append(f"Spot nodes cost {saving:.4f} USD less than on demand, {net:.4f} after what they took along.")
    if found.backtests:
        usd = costs.total_usd(found.backtests)
        lines.append(f"Backtests cost {usd:.4f} USD besides; they make no model and count for none.")
    return lines + [
        f"Over budget for cutoff {each.cutoff} by {each.over_usd:.2f} USD, because: {each.why}"
        for each in found.overspendings[-3:]
    ]


def _waits(found: Records) -> list[tuple[str, float, bool]]:
    """Return profile, seconds and whether it finished, of trainings and exports that say so, oldest first."""
    return [
        (each.profile or "unknown", wait, each.reason == costs.FINISHED)
        for each in reversed(found.attempts)
        if (wait := costs.waited_s(each)) is not None
    ]


def _bought(models: Sequence[accepted.Spent]) -> Parts:
    return sum((each.parts for each in models), Parts())


def _by_step(spec: ProductSpec, found: Records) -> list[dict[str, Any]]:
    rows = []
    for step in sorted({costs.step_of(each) for each in found.everything}):
        own = [each for each in found.everything if costs.step_of(each) == step]
        rows.append(
            {
                "product": spec.name,
                "step": step,
                "attempts": len(own),
                "finished": sum(each.reason == costs.FINISHED for each in own),
                "hours": round(sum((each.wall_s or 0) for each in own) / 3600, 3),
                "usd": round(costs.total_usd(own), DIGITS),
                "on_demand_usd": round(sum(costs.on_demand_cost_usd(each) for each in own), DIGITS),
            }
        )
    return rows


def _rows(found: Records) -> list[dict[str, Any]]:
    why = {each.fingerprint: each.why for each in found.overspendings}
    newest = sorted(found.everything, key=costs.began_at_utc, reverse=True)
    return [
        {
            "cutoff": each.cutoff,
            "step": costs.step_of(each),
            "ended": each.reason[:60],
            "profile": each.profile,
            "is_spot": each.is_spot,
            "began_at_utc": costs.began_at_utc(each)[:19],
            "waited_s": costs.waited_s(each),
            "wall_s": each.wall_s,
            "steps_done": each.steps_done,
            "steps_lost": each.steps_lost,
            "usd": round(costs.cost_usd(each), DIGITS),
            "on_demand_usd": round(costs.on_demand_cost_usd(each), DIGITS),
            "over_budget_because": None if each.fingerprint is None else why.get(each.fingerprint),
        }
        for each in newest[:MOST_ATTEMPTS]
    ]
