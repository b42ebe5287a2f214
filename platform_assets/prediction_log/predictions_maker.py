"""Ingest logged answers: parse lines, assign keys, mark late answers, merge with the ones already stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from platform_assets.base.keys import DailyGrain, HourlyGrain
from platform_assets.data import answer_rows, validation
from platform_assets.data.stage_inputs import read
from platform_assets.prediction_log import parsing
from platform_assets.prediction_log.answered_product import AnsweredProduct
from platform_assets.prediction_log.folding import Answers
from platform_assets.store.content import content_digest
from platform_assets.store.history.reader import Decisions

if TYPE_CHECKING:
    from platform_assets.product.spec import Product
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.tables import TableStore


def classify(
    product: ProductStore,
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
    arrived = {} if maker.is_timed else parsing.arrivals(product)
    if newest_batch is not None:
        last = product.spec.grain.index(newest_batch) if newest_batch else -1
        arrived = {key: moment for key, moment in arrived.items() if product.spec.grain.index(key) <= last}
    frame, strangers = maker.assign_keys(parsed, arrived)
    closed = product.history.closed_at(frame["key"].unique())
    if until is not None:
        closed = {key: moment for key, moment in closed.items() if moment <= until}
    return maker.mark_late(frame, closed), [line for part in parsed for line in part.left_out] + strangers


def merged(maker: Ingesting, tables: TableStore, fresh: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, int]]:
    """Return each changed key's rows, old and new, and the number of new ones."""
    touched = {str(key): part for (key,), part in fresh.partition_by("key", as_dict=True).items()}
    records = tables.records(parsing.STAGE, touched)
    existing = read(tables, parsing.STAGE, records, maker.columns)
    frames = {}
    for key, part in sorted(touched.items()):
        rows = maker.merge(existing.get(key), part)
        # Lines that a killed run had ingested already change nothing, so nothing is written.
        if key not in records or content_digest(rows) != records[key].content_digest:
            frames[key] = (rows, rows.height - (existing[key].height if key in existing else 0))
    return frames


@dataclass(frozen=True, kw_only=True)
class Ingesting(AnsweredProduct):
    """Ingests a product's answers."""

    # What brings rows or reads history outside of the maker: its code digest covers these too.
    CARRIERS: ClassVar[tuple[object, ...]] = (parsing.new_lines, classify, merged, Answers, Decisions)

    @staticmethod
    def for_product(spec: Product) -> Ingesting:
        """Return the maker for a product."""
        return Ingesting(
            grain=spec.grain,
            fields=spec.bare_fields,
            task=spec.task,
            is_live=spec.is_live,
            latency_ms=spec.service.latency_ms,
        )

    @property
    def is_timed(self) -> bool:
        """Whether an answer's key follows from its timestamp alone."""
        return isinstance(self.grain, DailyGrain | HourlyGrain)

    def parse(self, data: bytes, file: str, offset: int) -> answer_rows.Parsed:
        """Parse whole lines of a log into answers, and list the lines that are not answers."""
        return answer_rows.parse(data, self.fields, self.task, file=file, offset=offset)

    def assign_keys(
        self, parsed: Sequence[answer_rows.Parsed], arrivals: Mapping[str, datetime]
    ) -> tuple[pl.DataFrame, list[answer_rows.LeftOut]]:
        """Add each answer's key; list the answers whose service time belongs to no key of the product.

        Args:
            arrivals: when the last row of each batch was known; empty for a timed grain.
        """
        rows = pl.concat([part.rows for part in parsed])
        locations = [location for part in parsed for location in part.locations]
        if isinstance(self.grain, DailyGrain | HourlyGrain):
            keys = validation.key_column("service_time", partial(answer_rows.key_of, self.grain.key_of))(rows)
        else:
            by_arrival = answer_rows.keys_by_arrival(self.grain, rows["service_time"].to_list(), arrivals)
            keys = pl.Series(by_arrival, dtype=pl.String)
        is_ours = [key is not None and self.grain.contains(key) for key in keys]
        strangers = [
            answer_rows.LeftOut(
                file=file,
                offset=offset,
                reason=f"prediction {prediction} is served at {moment.isoformat()}, outside of {self.grain.describe()}",
            )
            for prediction, moment, (file, offset), ours in zip(
                rows["prediction_id"], rows["service_time"], locations, is_ours, strict=True
            )
            if not ours
        ]
        return rows.with_columns(keys.alias("key")).filter(pl.Series(is_ours, dtype=pl.Boolean)), strangers

    def mark_late(self, rows: pl.DataFrame, closed: Mapping[str, datetime]) -> pl.DataFrame:
        """Fill in `ingest.LATE` for fresh answers.

        A recording's answers carry the wall clock, which says nothing about its keys, so any answer ingested after the
        decision is late. A live product's log may be shipped late, so there the time of the answer decides.

        Args:
            closed: when each key's decision was made; keys without one are open.
        """
        # Without `return_dtype` an empty mapping gives a column of type Null.
        closed_at = pl.col("key").replace_strict(dict(closed), default=None, return_dtype=answer_rows.MOMENT)
        is_late = pl.col("answered_at_utc") > closed_at if self.is_live else closed_at.is_not_null()
        return rows.with_columns(is_late.fill_null(value=False).alias(answer_rows.LATE))

    def merge(self, stored: pl.DataFrame | None, fresh: pl.DataFrame) -> pl.DataFrame:
        """Merge a key's stored and fresh answers; each appears once."""
        return answer_rows.merge(self.empty() if stored is None else stored, fresh)
