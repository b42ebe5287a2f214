"""Convert attempts to a polars frame: their records' members, and what each attempt cost and lost.

A record needs only `wall_s` and `usd_per_hour`; those of older versions have little else. Where a record does not say
how many steps were saved, all its work counts as lost: savings are never assumed.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from platform_assets.failures import FAILURES
from platform_assets.records.attempts import FINISHED, TRAIN, Numbered, unique_attempts

PREEMPTION_REASONS = (*(failure.name for failure in FAILURES if failure.is_spot_loss), "vanished")
"""Reasons for which a spot node ends an attempt that would have continued elsewhere."""
RECORD_COLUMNS = pl.Schema(
    {
        **dict.fromkeys(("id", "step", "fingerprint", "cutoff", "digest", "reason", "profile"), pl.String()),
        "is_spot": pl.Boolean(),
        **dict.fromkeys(("usd_per_hour", "on_demand_usd_per_hour", "wall_s", "waited_s", "cpu_s"), pl.Float64()),
        **dict.fromkeys(("requested_at_utc", "started_at_utc", "ended_at_utc"), pl.String()),
        **dict.fromkeys(("resumed_from_step", "steps_done", "steps_saved", "steps_lost"), pl.Int64()),
    }
)
"""Columns that are members of a record, null where absent. Cached attempts have no `cpu_s`."""
SCHEMA = pl.Schema(
    {
        "number": pl.Int64(),
        **RECORD_COLUMNS,
        "began_at_utc": pl.String(),
        "work": pl.String(),
        "unsaved_steps": pl.Int64(),
        **dict.fromkeys(("lost_share", "usd", "on_demand_usd", "saving_usd", "net_saving_usd"), pl.Float64()),
    }
)
"""Attempts as a frame, one row per attempt, the newest first.

step: older records are of trainings.
began_at_utc: the moment it is charged to: its start, or, if it never started, its request.
waited_s: until it started, or, if it never did, until it was given up; null when its record does not say.
work: shared by attempts at the same work; a record without a fingerprint is its own work.
unsaved_steps: steps done and not saved; null when its record does not say.
lost_share: the share of its work that had to be repeated: 0 when it finished, 1 when nothing was saved.
usd, on_demand_usd: wall hours at its profile's price, and at the price of an on-demand node.
saving_usd: savings against on-demand for the same seconds. net_saving_usd: minus the cost of interruptions, because
on demand nobody would have paid for work lost with a node.
"""


def frame(records: Iterable[Numbered], step: str = TRAIN) -> pl.DataFrame:
    """Return attempts as a frame of `SCHEMA`.

    Args:
        records: as in the ledger; the reports of step and launcher on one attempt are merged.
        step: for records that do not name one.
    """
    rows = [
        (number, *(getattr(record, name) for name in RECORD_COLUMNS)) for number, record in unique_attempts(records)
    ]
    recorded = pl.DataFrame(rows, {"number": pl.Int64, **RECORD_COLUMNS}, orient="row").with_columns(
        pl.col(pl.String).replace("", None)
    )
    return recorded.with_columns(
        pl.col("step").fill_null(step),
        began_at_utc=pl.coalesce("started_at_utc", "requested_at_utc", "ended_at_utc", pl.lit("")),
        waited_s=pl.coalesce("waited_s", pl.when(pl.col("started_at_utc").is_null()).then(_waited_until_given_up())),
        unsaved_steps=_unsaved_steps(),
    ).with_columns(_work(), *_priced())[SCHEMA.names()]


def _waited_until_given_up() -> pl.Expr:
    requested, ended = (
        pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC")
        for name in ("requested_at_utc", "ended_at_utc")
    )
    return ((ended - requested).dt.total_microseconds() / 1e6).clip(0.0)


def _unsaved_steps() -> pl.Expr:
    not_saved = (pl.col("steps_done").fill_null(0) - pl.col("steps_saved")).clip(0)
    return pl.when(pl.col("reason") == FINISHED).then(0).otherwise(pl.coalesce("steps_lost", not_saved))


def _work() -> pl.Expr:
    own_work = pl.format("record {}", "number")
    return pl.format("{} {}", "step", pl.coalesce("fingerprint", own_work)).alias("work")


def _priced() -> list[pl.Expr]:
    done = pl.col("steps_done").fill_null(0) - pl.col("resumed_from_step").fill_null(0)
    share = pl.when(done > 0).then(pl.col("unsaved_steps") / done).clip(0.0, 1.0).fill_null(1.0)
    lost_share = pl.when(pl.col("reason") == FINISHED).then(0.0).otherwise(share)
    hours = pl.col("wall_s").fill_null(0.0) / 3600
    usd = hours * pl.col("usd_per_hour")
    on_demand_usd = hours * pl.coalesce("on_demand_usd_per_hour", "usd_per_hour")
    is_preempted = pl.col("is_spot").fill_null(value=False) & pl.col("reason").is_in(PREEMPTION_REASONS)
    kept_usd = on_demand_usd * pl.when(is_preempted).then(1.0 - lost_share).otherwise(1.0)
    return [
        lost_share.alias("lost_share"),
        usd.alias("usd"),
        on_demand_usd.alias("on_demand_usd"),
        (on_demand_usd - usd).alias("saving_usd"),
        (kept_usd - usd).alias("net_saving_usd"),
    ]
