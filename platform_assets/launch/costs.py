"""Sum the costs of attempts by month, and estimate what the next or a running training will still cost.

An attempt is charged to the month of its cutoff, because a decision is made for that cutoff. Batches have no months, so
the wall clock's month counts. Exports count; backtests are charged to no month.

Works on the frame of attempts (`store.history.attempts.SCHEMA`), where the cost of a single attempt is computed.
"""

from __future__ import annotations

import polars as pl

from platform_assets.base.keys import Grain
from platform_assets.store.records.attempts import EXPORT, FINISHED, TRAIN


def month_of(grain: Grain, cutoff: str) -> str | None:
    """Return a cutoff's month (`2013-03`), or None for batches."""
    return None if grain.instant_after(cutoff) is None else f"{grain.instant(cutoff):%Y-%m}"


def with_month(grain: Grain, attempts: pl.DataFrame) -> pl.DataFrame:
    """Add the `month` that attempts are charged to: their cutoff's, or for batches the wall clock's."""
    assert not attempts["cutoff"].has_nulls()  # every record has one
    months = {cutoff: month_of(grain, cutoff) for cutoff in attempts["cutoff"].unique()}
    month = pl.col("cutoff").replace_strict(months, return_dtype=pl.String)
    return attempts.with_columns(month=month.fill_null(pl.col("began_at_utc").str.head(7)))


def spent_usd(grain: Grain, attempts: pl.DataFrame, month: str) -> float:
    """Return the total cost of the attempts charged to a month (`2013-03`)."""
    return total_usd(with_month(grain, attempts).filter(month=month))


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
