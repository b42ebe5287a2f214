"""Turn parsed lines of the prediction log into rows with keys, whichever source they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from platform_assets.base import naming
from platform_assets.data import answer_rows
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.store.handle import Product

MOST_NAMED = 20
"""How many skipped lines one record or one table names; all are counted."""


def classify(
    product: Product,
    maker: Ingesting,
    parsed: Sequence[answer_rows.Parsed],
    *,
    newest_batch: str | None = None,
    until: datetime | None = None,
) -> tuple[pl.DataFrame, list[answer_rows.LeftOut]]:
    """Return the rows with key and `answer_rows.LATE`, and everything that is left out.

    Args:
        parsed: of whole lines, at least one.
        newest_batch: for numbered batches, the newest that counts as arrived, "" for none; all by default.
        until: decisions made later than this do not make an answer late; all do by default.
    """
    arrived = {} if maker.is_timed else arrivals(product)
    if newest_batch is not None:
        last = product.spec.grain.index(newest_batch) if newest_batch else -1
        arrived = {key: moment for key, moment in arrived.items() if product.spec.grain.index(key) <= last}
    frame, strangers = maker.assign_keys(parsed, arrived)
    closed = product.history.closed_at(frame["key"].unique())
    if until is not None:
        closed = {key: moment for key, moment in closed.items() if moment <= until}
    return maker.mark_late(frame, closed), [line for part in parsed for line in part.left_out] + strangers


def arrivals(product: Product) -> Mapping[str, datetime]:
    """Return when the last row of each batch was known, over the sources that the model reads."""
    latest: dict[str, datetime] = {}
    for stage, known_at in (
        (naming.stage("validated", source.name), source.known_at) for source in product.spec.feature_sources
    ):
        keys = [] if known_at is None else list(product.tables.records(stage))
        if known_at is not None and keys:
            rows = (
                product.tables.read(stage, keys, columns=[known_at])
                .drop_nulls()
                .group_by("key")
                .agg(pl.col(known_at).max())
            )
            latest |= {key: max(moment, latest.get(key, moment)) for key, moment in rows.iter_rows()}
    return latest
