"""Attempts as one polars frame: what their records say, and what each cost and lost.

Belongs here: the columns. Does not belong here: reading the ledgers (`money`), or sums (`compute.costs`).

A record needs no more than `wall_s` and `usd_per_hour`; those of older versions have little else. Where a record does
not say what it saved, all of its work counts as lost: what is not known to be kept is not claimed.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from platform_assets.failures import FAILURES
from platform_assets.records.attempts import FINISHED, TRAIN, Numbered, unique_attempts

TAKEN_AWAY = (*(failure.name for failure in FAILURES if failure.is_spot_loss), "vanished")
"""How a spot node ends a try that would have gone on elsewhere."""
RECORDED = pl.Schema(
    {
        **dict.fromkeys(("id", "step", "fingerprint", "cutoff", "digest", "reason", "profile"), pl.String()),
        "is_spot": pl.Boolean(),
        **dict.fromkeys(("usd_per_hour", "on_demand_usd_per_hour", "wall_s", "waited_s", "cpu_s"), pl.Float64()),
        **dict.fromkeys(("requested_at_utc", "started_at_utc", "ended_at_utc"), pl.String()),
        **dict.fromkeys(("resumed_from_step", "steps_done", "steps_saved", "steps_lost"), pl.Int64()),
    }
)
"""The columns that are members of a record, null where it does not say. What is kept at hand has no `cpu_s`."""
SCHEMA = pl.Schema(
    {
        "number": pl.Int64(),
        **RECORDED,
        "began_at_utc": pl.String(),
        "work": pl.String(),
        "unsaved_steps": pl.Int64(),
        **dict.fromkeys(("lost_share", "usd", "on_demand_usd", "saving_usd", "net_saving_usd"), pl.Float64()),
    }
)
"""Attempts as a frame, each once, the newest first.

step: older records are of trainings.
began_at_utc: the moment for which it counts: its start, or, if it never started, when it was asked for.
waited_s: until it started, or, if it never did, until it was given up; null when its record does not say.
work: what tries at the same have in common; a record without a fingerprint is its own work.
unsaved_steps: what it did and did not save; null when its record does not say.
lost_share: of its work, what had to be done again: 0 when it finished, 1 when nothing was saved.
usd, on_demand_usd: hours of wall time at its profile's price, and on a node that nobody takes away.
saving_usd: how much less the same seconds cost than on demand. net_saving_usd: less what interruptions cost, for on
demand nobody had paid for work that a node took along.
"""


def frame(records: Iterable[Numbered], step: str = TRAIN) -> pl.DataFrame:
    """Return attempts by `SCHEMA`.

    Args:
        records: as the ledger has them; what step and launcher both tell of counts once.
        step: what those are that do not say.
    """
    rows = [(number, *(getattr(record, name) for name in RECORDED)) for number, record in unique_attempts(records)]
    written = pl.DataFrame(rows, {"number": pl.Int64, **RECORDED}, orient="row").with_columns(
        pl.col(pl.String).replace("", None)
    )
    return written.with_columns(
        pl.col("step").fill_null(step),
        began_at_utc=pl.coalesce("started_at_utc", "requested_at_utc", "ended_at_utc", pl.lit("")),
        waited_s=pl.coalesce("waited_s", pl.when(pl.col("started_at_utc").is_null()).then(_until_given_up())),
        unsaved_steps=_unsaved_steps(),
    ).with_columns(_work(), *_priced())[SCHEMA.names()]


def _until_given_up() -> pl.Expr:
    asked, ended = (
        pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC")
        for name in ("requested_at_utc", "ended_at_utc")
    )
    return ((ended - asked).dt.total_microseconds() / 1e6).clip(0.0)


def _unsaved_steps() -> pl.Expr:
    not_saved = (pl.col("steps_done").fill_null(0) - pl.col("steps_saved")).clip(0)
    return pl.when(pl.col("reason") == FINISHED).then(0).otherwise(pl.coalesce("steps_lost", not_saved))


def _work() -> pl.Expr:
    own = pl.format("record {}", "number")
    return pl.format("{} {}", "step", pl.coalesce("fingerprint", own)).alias("work")


def _priced() -> list[pl.Expr]:
    done = pl.col("steps_done").fill_null(0) - pl.col("resumed_from_step").fill_null(0)
    share = pl.when(done > 0).then(pl.col("unsaved_steps") / done).clip(0.0, 1.0).fill_null(1.0)
    lost_share = pl.when(pl.col("reason") == FINISHED).then(0.0).otherwise(share)
    hours = pl.col("wall_s").fill_null(0.0) / 3600
    usd = hours * pl.col("usd_per_hour")
    on_demand_usd = hours * pl.coalesce("on_demand_usd_per_hour", "usd_per_hour")
    is_taken = pl.col("is_spot").fill_null(value=False) & pl.col("reason").is_in(TAKEN_AWAY)
    kept_usd = on_demand_usd * pl.when(is_taken).then(1.0 - lost_share).otherwise(1.0)
    return [
        lost_share.alias("lost_share"),
        usd.alias("usd"),
        on_demand_usd.alias("on_demand_usd"),
        (on_demand_usd - usd).alias("saving_usd"),
        (kept_usd - usd).alias("net_saving_usd"),
    ]
