"""Say what attempts cost together, what the next training may cost, and what one under way may still cost.

Belongs here: sums over the frame of attempts (`history.attempts.SCHEMA`). Does not belong here: what one attempt cost
(`history.attempts`), plots (`show.cost_plots`), or which attempts led to which model (`compute.accepted`).
"""

from __future__ import annotations

import polars as pl

from platform_assets.records.attempts import EXPORT, FINISHED, TRAIN


def sums() -> dict[str, pl.Expr]:
    """Return what attempts add up to, by name: for `select`, or for `agg` by model, month, profile or step."""
    is_finished = pl.col("reason") == FINISHED
    return {
        "attempts": pl.len(),
        "finished": is_finished.sum(),
        "trainings": pl.col("work").filter(is_finished & (pl.col("step") == TRAIN)).n_unique(),
        "hours": pl.col("wall_s").sum() / 3600,
        **{name: pl.col(name).sum() for name in ("usd", "on_demand_usd", "saving_usd", "net_saving_usd")},
    }


def next_usd(attempts: pl.DataFrame, profile: str) -> float | None:
    """Return what the newest finished training of a size cost; None when none of this size has finished.

    Counted are all tries at that training, also those that were taken away before the one that finished, and the
    exports of its cutoff that followed: a next training pays for the same. A training that never finished says nothing
    about one that does.

    Args:
        attempts: the newest first.
        profile: on which it, or a try at it, ran: the last one of a spot size is on demand. A record without one is of
            a time when there was one size.
    """
    sized = attempts.filter(pl.col("profile").is_null() | (pl.col("profile") == profile))["work"].unique()
    ended = attempts.filter(step=TRAIN, reason=FINISHED).filter(pl.col("work").is_in(sized.implode()))
    if ended.is_empty():
        return None
    newest = ended.row(0, named=True)
    follows = (pl.col("number") > newest["number"]) & (pl.col("step") == EXPORT)
    is_export = follows & pl.col("cutoff").eq_missing(pl.lit(newest["cutoff"]))
    return total_usd(attempts.filter((pl.col("work") == newest["work"]) | is_export))


def remaining_usd(whole_usd: float, attempts: pl.DataFrame, fingerprint: str) -> float:
    """Return what a training may still cost: the whole, less what its own tries have paid for and saved."""
    own = attempts.filter(step=TRAIN, fingerprint=fingerprint)
    return max(0.0, whole_usd - float((own["usd"] * (1 - own["lost_share"])).sum()))


def total_usd(attempts: pl.DataFrame) -> float:
    """Return what attempts cost together."""
    return float(attempts["usd"].sum())
