"""Tell which answers were given after their key was closed: when its decision was on record.

Belongs here: reading decisions, marking rows and counting the marked ones. Does not belong here: what such rows count
for (`compute.answers`).
"""

from datetime import datetime
from typing import Any

import polars as pl

from platform_assets import naming
from platform_assets.compute import ingest, latency
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.ledgers import Ledgers


def mark(rows: pl.DataFrame, ledgers: Ledgers, *, is_live: bool) -> pl.DataFrame:
    """Return fresh answers with `ingest.LATE` filled in.

    A recording's answers bear the wall clock, which says nothing about its keys: what is taken in after the decision is
    late. A live product's log may be shipped late, so there the time of the answer decides.

    Args:
        rows: as `ingest.parse` returns them, with their `key`.
        ledgers: the product's.
        is_live: whether the product is live.
    """
    decided = {key: ledgers.read(naming.DECISIONS, key) for key in rows["key"].unique()}
    closed = {key: datetime.fromisoformat(record["at_utc"]) for key, record in decided.items() if record is not None}
    closed_at = pl.col("key").replace_strict(closed, default=None, return_dtype=ingest.MOMENT)
    is_late = pl.col("answered_at_utc") > closed_at if is_live else closed_at.is_not_null()
    return rows.with_columns(is_late.fill_null(value=False).alias(ingest.LATE))


def notes(rows: pl.DataFrame, spec: ProductSpec) -> dict[str, Any]:
    """Return what the record of a key tells of its answers: `models`, how many by bundle, and `late`, how many are.

    How fast they were is `measured`: it is of the machine and its moment, not of what was answered.
    """
    models = dict(rows["digest"].value_counts().sort("digest").iter_rows())
    fast = latency.counted(rows, spec.service.latency_ms)
    return {"models": models, "late": rows[ingest.LATE].sum(), "measured": {"latency": fast}}
