"""Build the metadata of a product's costs: numbers that Dagster plots over runs (at most 20), tables, charts."""

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
from platform_assets.wording import counted

MAX_ATTEMPTS = 25
MAX_MODELS = 24
"""How many of the newest the tables hold."""
DIGITS = 6
"""Money is kept to a millionth of a dollar: a local training costs hundredths of a cent."""
OF_A_MODEL = ("release", "cutoff", "trainings", "attempts", "usd", "on_demand_usd", *accepted.PARTS)
OF_A_STEP = ("product", "step", "attempts", "finished", "hours", "usd", "on_demand_usd")


@dataclass(frozen=True, kw_only=True)
class Records:
    """The records behind the numbers.

    Attributes:
        attempts, backtests: by `history.attempts.SCHEMA`.
        releases: oldest first, with their numbers.
        overspendings: launches over budget with a person's reason, oldest first.
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
        """Accepted models, oldest first; the last row is what was spent since."""
        return accepted.models(self.bought, self.releases)

    @cached_property
    def waits(self) -> pl.DataFrame:
        """Trainings and exports with a known wait, oldest first."""
        waited = self.attempts.reverse().filter(pl.col("waited_s").is_not_null())
        return waited.with_columns(pl.col("profile").fill_null("unknown"))


def metadata(spec: ProductSpec, records: Records) -> values.Metadata:
    """Return the asset's metadata; without an attempt there are no numbers but their count."""
    if records.everything.is_empty():
        return {values.RESULT: "Nothing has been tried yet, so nothing was spent.", "attempts": 0}
    sentences = _sentences(records)
    content: values.Metadata = {"what_it_shows": values.bullets(sentences)}
    months = budget.with_month(spec, records.bought).group_by("month").agg(**accepted.sums()).sort("month")
    if not months.is_empty():
        chart = cost_plots.money(months, records.models, budget_usd=spec.retraining.monthly_budget_usd)
        content["money"] = values.image(chart, "Cost by month and by accepted model")
    newest = records.models.tail(MAX_MODELS).reverse().with_columns(pl.col("release").cast(pl.String).fill_null("open"))
    content["accepted_models"] = values.table(_rounded(newest.select(OF_A_MODEL).rows(named=True), 4))
    if records.everything["is_spot"].any():
        profile = pl.col("profile").fill_null("unknown")
        chart = cost_plots.spot(records.everything.group_by(profile).agg(**costs.sums()).sort("profile"))
        content["spot"] = values.image(chart, "Paid, and the same seconds on demand")
    if not records.waits.is_empty():
        content["waiting"] = values.image(cost_plots.waiting(records.waits), "Seconds from request to start")
    steps = records.everything.group_by("step").agg(**costs.sums()).sort("step")
    by_step = [{"product": spec.name, **row, "hours": round(row["hours"], 3)} for row in steps.rows(named=True)]
    content["by_step"] = values.table(_rounded(by_step), columns=OF_A_STEP)
    content["newest_attempts"] = values.table(_rows(records))
    return values.readable(sentences[0], content | numbers(spec, records))


def numbers(spec: ProductSpec, records: Records) -> dict[str, float | int]:
    """Return the numbers that Dagster plots; an unknown one is left out, never zero."""
    everything = records.everything.select(**costs.sums()).row(0, named=True)
    following = money.next_training(spec, records.attempts)
    closed, since = records.models[:-1], records.models.row(-1, named=True)
    bought = records.bought.select(**accepted.sums()).row(0, named=True)
    usd, wait = pl.col("usd"), pl.col("waited_s")
    model = closed.select(newest=usd.last(), mean=usd.mean()).row(0, named=True)
    waits = records.waits.select(mean=wait.mean(), longest=wait.max()).row(0, named=True)
    rejected_usd = closed.select(pl.col(accepted.REJECTED).sum()).item()
    unsaved_steps = records.attempts.select(pl.col("unsaved_steps").sum()).item()
    plotted: dict[str, float | int | None] = {
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
        "backtests_usd": costs.total_usd(records.backtests),
        "mean_waited_s": waits["mean"],
        "longest_waited_s": waits["longest"],
        "next_usd_at_most" if isinstance(following, money.Limit) else "next_usd": following.usd,
        "monthly_budget_usd": spec.retraining.monthly_budget_usd,
    }
    return {name: round(value, DIGITS) for name, value in plotted.items() if value is not None}


def _sentences(records: Records) -> list[str]:
    closed, since = records.models[:-1], records.models.row(-1, named=True)
    lines = []
    if not closed.is_empty():
        newest = closed.row(-1, named=True)
        lines.append(
            f"The newest accepted model (release {newest['release']}, cutoff {newest['cutoff']}) cost "
            f"{newest['usd']:.4f} USD: {counted(newest['attempts'], 'attempt')}, "
            f"{counted(newest['trainings'], 'finished training')} since the model before it."
        )
        lines.append(f"Since then {since['usd']:.4f} USD were spent on what may become the next one.")
    else:
        lines.append(f"No model has been accepted yet: all {since['usd']:.4f} USD are open.")
    bought = records.bought.select(**accepted.sums()).row(0, named=True)
    lost = bought[accepted.LOST]
    if lost:
        lines.append(f"{lost:.4f} USD ({lost / bought['usd']:.1%}) went into work that was lost and repeated.")
    saving, net = (records.everything[name].sum() for name in ("saving_usd", "net_saving_usd"))
    if saving:
        lines.append(f"Spot nodes cost {saving:.4f} USD less than on demand, {net:.4f} net of the work lost with them.")
    if not records.backtests.is_empty():
        usd = costs.total_usd(records.backtests)
        lines.append(f"Backtests cost another {usd:.4f} USD; they make no model, so no model is charged.")
    return lines + [
        f"Over budget for cutoff {excess.cutoff} by {excess.over_usd:.2f} USD, because: {excess.why}"
        for excess in records.overspendings[-3:]
    ]


def _rows(records: Records) -> list[values.Row]:
    reasons = {excess.fingerprint: excess.why for excess in records.overspendings}
    newest = records.everything.sort("began_at_utc", descending=True, maintain_order=True).head(MAX_ATTEMPTS)
    rows = newest.select(
        "cutoff",
        "step",
        pl.col("reason").str.head(60).alias("ended"),
        "profile",
        "is_spot",
        pl.col("began_at_utc").str.head(19),
        *("waited_s", "wall_s", "steps_done", "steps_lost", "usd", "on_demand_usd"),
        pl.col("fingerprint")
        .replace_strict(reasons, default=None, return_dtype=pl.String)
        .alias("over_budget_because"),
    )
    return _rounded(rows.rows(named=True))


def _rounded(rows: Iterable[values.Row], digits: int = DIGITS) -> list[values.Row]:
    """Return rows with their dollars rounded."""
    return [
        {
            name: round(value, digits) if name.endswith("usd") and isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]
