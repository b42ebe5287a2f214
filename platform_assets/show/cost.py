"""Show what a product's attempts cost: numbers that Dagster plots over runs, tables and pictures.

Belongs here: from records to metadata, at most twenty numbers. Does not belong here: sums (`compute.costs`,
`compute.accepted`), or reading any record (`stages.cost`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from platform_assets.compute import accepted, costs
from platform_assets.facts import budget
from platform_assets.records.attempts import Excess
from platform_assets.show import cost_plots, values
from platform_assets.specs import money
from platform_assets.specs.base import ProductSpec

MOST_ATTEMPTS = 25
MOST_MODELS = 24
"""How many of the newest stand in the tables."""
DIGITS = 6
"""Money is kept to a millionth of a dollar: a local training costs hundredths of a cent."""
OF_A_MODEL = ("release", "cutoff", "trainings", "attempts", "usd", "on_demand_usd", *accepted.PARTS)
OF_A_STEP = ("product", "step", "attempts", "finished", "hours", "usd", "on_demand_usd")


@dataclass(frozen=True, kw_only=True)
class Records:
    """What is told.

    Attributes:
        attempts, backtests: by `history.attempts.SCHEMA`.
        releases: oldest first, with their numbers.
        overspendings: a person's words for launches over budget, oldest first.
    """

    attempts: pl.DataFrame
    backtests: pl.DataFrame
    releases: Sequence[accepted.Numbered]
    overspendings: Sequence[Excess]

    @cached_property
    def everything(self) -> pl.DataFrame:
        """Trainings, exports and backtests."""
        return self.attempts.vstack(self.backtests)

    @cached_property
    def bought(self) -> pl.DataFrame:
        """Trainings and exports with what their money bought, oldest first."""
        return accepted.bought(self.attempts, self.releases)

    @cached_property
    def models(self) -> pl.DataFrame:
        """Accepted models, oldest first, and what is open."""
        return accepted.models(self.bought, self.releases)

    @cached_property
    def waits(self) -> pl.DataFrame:
        """Trainings and exports that say how long they waited, oldest first."""
        known = self.attempts.reverse().filter(pl.col("waited_s").is_not_null())
        return known.with_columns(pl.col("profile").fill_null("unknown"))


def told(spec: ProductSpec, found: Records) -> values.Metadata:
    """Return the asset's metadata; what nobody has tried has no numbers."""
    if found.everything.is_empty():
        return {"attempts": 0, "what_it_shows": "Nothing has been tried yet, so nothing was spent."}
    shown: values.Metadata = {"what_it_shows": values.bullets(_said(found))}
    months = budget.with_month(spec, found.bought).group_by("month").agg(**accepted.sums()).sort("month")
    if not months.is_empty():
        chart = cost_plots.money(months, found.models, budget_usd=spec.retraining.monthly_budget_usd)
        shown["money"] = values.image(chart, "Cost by month and by accepted model")
    newest = found.models.tail(MOST_MODELS).reverse().with_columns(pl.col("release").cast(pl.String).fill_null("open"))
    shown["accepted_models"] = values.table(_rounded(newest.select(OF_A_MODEL).rows(named=True), 4))
    if found.everything["is_spot"].any():
        profile = pl.col("profile").fill_null("unknown")
        chart = cost_plots.spot(found.everything.group_by(profile).agg(**costs.sums()).sort("profile"))
        shown["spot"] = values.image(chart, "Paid, and the same seconds on demand")
    if not found.waits.is_empty():
        shown["waiting"] = values.image(cost_plots.waiting(found.waits), "Seconds from request to start")
    steps = found.everything.group_by("step").agg(**costs.sums()).sort("step")
    by_step = [{"product": spec.name, **row, "hours": round(row["hours"], 3)} for row in steps.rows(named=True)]
    shown["by_step"] = values.table(_rounded(by_step), columns=OF_A_STEP)
    shown["newest_attempts"] = values.table(_rows(found))
    return shown | numbers(spec, found)


def numbers(spec: ProductSpec, found: Records) -> dict[str, float | int]:
    """Return what Dagster plots; a number that is not known is left out, never zero."""
    everything = found.everything.select(**costs.sums()).row(0, named=True)
    closed, since = found.models[:-1], found.models.row(-1, named=True)
    bought = found.bought.select(**accepted.sums()).row(0, named=True)
    of_model, wait = pl.col("usd"), pl.col("waited_s")
    model = closed.select(newest=of_model.last(), mean=of_model.mean()).row(0, named=True)
    waits = found.waits.select(mean=wait.mean(), longest=wait.max()).row(0, named=True)
    rejected_usd = closed.select(pl.col(accepted.REJECTED).sum()).item()
    unsaved_steps = found.attempts.select(pl.col("unsaved_steps").sum()).item()
    known: dict[str, float | int | None] = {
        "attempts": everything["attempts"],
        "total_usd": everything["usd"],
        "on_demand_usd": everything["on_demand_usd"],
        "spot_saving_usd": everything["saving_usd"],
        "net_spot_saving_usd": everything["net_saving_usd"],
        "models_accepted": len(closed),
        "newest_model_usd": model["newest"],
        "mean_model_usd": model["mean"],
        "open_usd": since["usd"],
        "rejected_usd": rejected_usd,
        "lost_usd": bought[accepted.LOST],
        "lost_share": bought[accepted.LOST] / bought["usd"] if bought["usd"] else None,
        "steps_lost": unsaved_steps,
        "failed_usd": bought[accepted.FAILED],
        "backtests_usd": costs.total_usd(found.backtests),
        "mean_waited_s": waits["mean"],
        "longest_waited_s": waits["longest"],
        "next_usd": money.following(spec, found.attempts).usd,
        "monthly_budget_usd": spec.retraining.monthly_budget_usd,
    }
    return {name: round(value, DIGITS) for name, value in known.items() if value is not None}


def _said(found: Records) -> list[str]:
    closed, since = found.models[:-1], found.models.row(-1, named=True)
    lines = []
    if not closed.is_empty():
        newest = closed.row(-1, named=True)
        lines.append(
            f"The newest accepted model (release {newest['release']}, cutoff {newest['cutoff']}) cost "
            f"{newest['usd']:.4f} USD: {newest['attempts']} attempts, {newest['trainings']} finished trainings since "
            "the model before it."
        )
    else:
        lines.append("No model was accepted yet: all that was spent is open.")
    lines.append(f"Since then {since['usd']:.4f} USD were spent on what may become the next one.")
    bought = found.bought.select(**accepted.sums()).row(0, named=True)
    lost = bought[accepted.LOST]
    if lost:
        lines.append(f"{lost:.4f} USD ({lost / bought['usd']:.1%}) went into work that was lost and done again.")
    saving, net = (found.everything[name].sum() for name in ("saving_usd", "net_saving_usd"))
    if saving:
        lines.append(f"Spot nodes cost {saving:.4f} USD less than on demand, {net:.4f} after what they took along.")
    if not found.backtests.is_empty():
        usd = costs.total_usd(found.backtests)
        lines.append(f"Backtests cost {usd:.4f} USD besides; they make no model and count for none.")
    return lines + [
        f"Over budget for cutoff {each.cutoff} by {each.over_usd:.2f} USD, because: {each.why}"
        for each in found.overspendings[-3:]
    ]


def _rows(found: Records) -> list[values.Row]:
    why = {each.fingerprint: each.why for each in found.overspendings}
    newest = found.everything.sort("began_at_utc", descending=True, maintain_order=True).head(MOST_ATTEMPTS)
    shown = newest.select(
        "cutoff",
        "step",
        pl.col("reason").str.head(60).alias("ended"),
        "profile",
        "is_spot",
        pl.col("began_at_utc").str.head(19),
        *("waited_s", "wall_s", "steps_done", "steps_lost", "usd", "on_demand_usd"),
        pl.col("fingerprint").replace_strict(why, default=None, return_dtype=pl.String).alias("over_budget_because"),
    )
    return _rounded(shown.rows(named=True))


def _rounded(rows: Iterable[values.Row], digits: int = DIGITS) -> list[values.Row]:
    """Return rows with their dollars rounded."""
    return [
        {
            name: round(value, digits) if name.endswith("usd") and isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]
