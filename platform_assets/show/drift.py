"""Show what the judgement of keys found: drift by key, checks, faulty keys.

Belongs here: from records and rows of `drift` to metadata. Does not belong here: judging (`makers.judgement`).
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
import polars as pl

from platform_assets.makers.drift import COLUMNS, PSI
from platform_assets.records.judgements import Judgement, Primary
from platform_assets.show import values
from platform_assets.show.drift_plots import drift_chart

MOST_SHOWN = 20


def newest(judged: Mapping[str, Judgement], rows: pl.DataFrame) -> values.Metadata:
    """Return what the newest key of a run shows besides: what failed and the farthest fields; the table has the rest.

    Args:
        judged: the keys up to it, in order.
        rows: of the key.
    """
    shown = rows.filter(pl.col("is_failing") | (pl.col("check") == PSI)).head(MOST_SHOWN)
    return {
        "drift": values.image(drift_chart(judged), "drift index by key"),
        "checks": values.table(shown.drop("key").to_dicts(), columns=list(COLUMNS)),
    }


def faulty(primary: Mapping[str, Primary]) -> dg.MarkdownMetadataValue:
    """Return the primary fault of each faulty key as a table."""
    return values.table([{"key": key, **fault.document()} for key, fault in list(primary.items())[:MOST_SHOWN]])
