"""Convert attempts to a polars frame: their records' members, and what each attempt cost and lost.

Where a record does not say how many steps were saved, all its work counts as lost: savings are never assumed.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from platform_assets.store.records.attempts import BACKTEST, FINISHED, TRAIN, Numbered, unique_attempts

RECORD_COLUMNS = pl.Schema(
    {
        **dict.fromkeys(("id", "run_id", "step", "fingerprint", "cutoff", "digest", "reason", "profile"), pl.String()),
        **dict.fromkeys(("usd_per_hour", "on_demand_usd_per_hour", "wall_s", "cpu_s"), pl.Float64()),
        **dict.fromkeys(("requested_at_utc", "started_at_utc", "ended_at_utc"), pl.String()),
        **dict.fromkeys(("resumed_from_step", "steps_done", "steps_saved", "steps_lost"), pl.Int64()),
    }
)
"""Columns that are members of a record, null where absent."""
SCHEMA = pl.Schema(
    {
        "number": pl.Int64(),
        **RECORD_COLUMNS,
        "began_at_utc": pl.String(),
        "work": pl.String(),
        **dict.fromkeys(("lost_share", "usd", "saving_usd"), pl.Float64()),
    }
)
"""Attempts as a frame, one row per attempt, the newest first.

began_at_utc: the moment it is charged to: its start, or, if it never started, its request.
work: shared by attempts at the same work; a record without a fingerprint is its own work.
lost_share: the share of its work that had to be repeated: 0 when it finished, 1 when nothing was saved.
usd: wall hours at its profile's price. saving_usd: against the same hours on an on-demand node.
"""


def frame(records: Iterable[Numbered]) -> pl.DataFrame:
    """Return attempts as a frame of `SCHEMA`, without those of backtests, which are charged to no model and no month.

    Args:
        records: as in the ledger; the reports of step and launcher on one attempt are merged.
    """
    rows = [
        (number, *(getattr(record, name) for name in RECORD_COLUMNS))
        for number, record in unique_attempts(records)
        if record.step != BACKTEST
    ]
    hours = pl.col("wall_s").fill_null(0.0) / 3600
    recorded = pl.DataFrame(rows, {"number": pl.Int64, **RECORD_COLUMNS}, orient="row").with_columns(
        pl.col(pl.String).replace("", None)
    )
    own_work = pl.format("record {}", "number")
    done = pl.col("steps_done").fill_null(0) - pl.col("resumed_from_step").fill_null(0)
    not_saved = (pl.col("steps_done").fill_null(0) - pl.col("steps_saved")).clip(0)
    share = pl.when(done > 0).then(pl.coalesce("steps_lost", not_saved) / done).clip(0.0, 1.0).fill_null(1.0)
    recorded = recorded.with_columns(
        pl.col("step").fill_null(TRAIN),
        began_at_utc=pl.coalesce("started_at_utc", "requested_at_utc", "ended_at_utc", pl.lit("")),
        lost_share=pl.when(pl.col("reason") == FINISHED).then(0.0).otherwise(share),
        usd=hours * pl.col("usd_per_hour"),
        saving_usd=hours * (pl.coalesce("on_demand_usd_per_hour", "usd_per_hour") - pl.col("usd_per_hour")),
    )
    work = pl.format("{} {}", "step", pl.coalesce("fingerprint", own_work))
    return recorded.with_columns(work=work)[SCHEMA.names()]
