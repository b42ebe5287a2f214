"""Sum the costs of attempts, and estimate what the next or a running training will still cost.

Works on the frame of attempts (`history.attempts.SCHEMA`), where the cost of a single attempt is computed.
"""

from __future__ import annotations

import polars as pl

from platform_assets.records.attempts import EXPORT, FINISHED, TRAIN


def sums() -> dict[str, pl.Expr]:
    """Return the sums over attempts by name, for `select`, or for `agg` by model, month, profile or step."""
    is_finished = pl.col("reason") == FINISHED
    return {
        "attempts": pl.len(),
        "finished": is_finished.sum(),
        "trainings": pl.col("work").filter(is_finished & (pl.col("step") == TRAIN)).n_unique(),
        "hours": pl.col("wall_s").sum() / 3600,
        **{name: pl.col(name).sum() for name in ("usd", "on_demand_usd", "saving_usd", "net_saving_usd")},
    }


def next_usd(attempts: pl.DataFrame, profile: str) -> float | None:
    """Return what the newest finished training on a profile cost; None if none has finished on it.

    Includes every try at that training, interrupted ones too, and the exports of its cutoff that followed: the next
    training pays for the same. Trainings that never finished are not used.

    Args:
        attempts: newest first.
        profile: the profile it, or one of its tries, ran on: the last try of a spot profile runs on demand. Records
            without a profile are from the time when there was only one, and match any.
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
    """Return what a running training may still cost: the whole, less what its own tries have paid for and saved."""
    tries = attempts.filter(step=TRAIN, fingerprint=fingerprint)
    return max(0.0, whole_usd - float((tries["usd"] * (1 - tries["lost_share"])).sum()))


def total_usd(attempts: pl.DataFrame) -> float:
    """Return the total cost of attempts."""
    return float(attempts["usd"].sum())
