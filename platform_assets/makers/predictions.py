"""Take logged answers in: parse lines, name their keys, mark the late ones, merge them with those that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import polars as pl

from platform_assets.compute import ingest, latency, validate
from platform_assets.keys import DailyGrain, HourlyGrain
from platform_assets.records.notes import Requests

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task
    from platform_assets.keys import Grain
    from platform_assets.product.fields import Field
    from platform_assets.specs.base import ProductSpec


class Measured(TypedDict):
    """How fast answers were: of the machine and its moment, not of what was answered."""

    latency: Requests


class Notes(TypedDict):
    """A key's answers by bundle, and how many of them are late."""

    models: dict[str, int]
    late: int
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class Taking:
    """Takes in the answers of a product; `latency_ms` is that of its `Service`."""

    grain: Grain
    fields: tuple[Field, ...]
    task: Task
    is_live: bool
    latency_ms: float

    @staticmethod
    def of(spec: ProductSpec) -> Taking:
        """Return what takes in the answers of a product."""
        return Taking(
            grain=spec.grain,
            fields=spec.bare_fields,
            task=spec.task,
            is_live=spec.is_live,
            latency_ms=spec.service.latency_ms,
        )

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns of answers."""
        return ingest.schema(self.fields, self.task)

    @property
    def is_timed(self) -> bool:
        """Whether an answer's key follows from its moment alone."""
        return isinstance(self.grain, DailyGrain | HourlyGrain)

    def parse(self, data: bytes, file: str, offset: int) -> ingest.Parsed:
        """Return the answers of some whole lines of a log, and the lines that are none."""
        return ingest.parse(data, self.fields, self.task, file=file, offset=offset)

    def keyed(
        self, parsed: Sequence[ingest.Parsed], arrivals: Mapping[str, datetime]
    ) -> tuple[pl.DataFrame, list[ingest.LeftOut]]:
        """Return the answers with their key, and those whose moment of service no key of the product has.

        Args:
            arrivals: when the last row of each batch was known; empty for a timed grain.
        """
        rows = pl.concat([part.rows for part in parsed])
        places = [place for part in parsed for place in part.places]
        keys = self._keys(rows, arrivals)
        is_ours = [key is not None and self.grain.contains(key) for key in keys]
        strangers = [
            ingest.LeftOut(
                file=file,
                offset=offset,
                reason=f"prediction {prediction} is served at {moment.isoformat()}, outside of {self.grain.describe()}",
            )
            for prediction, moment, (file, offset), ours in zip(
                rows["prediction_id"], rows["service_time"], places, is_ours, strict=True
            )
            if not ours
        ]
        return rows.with_columns(keys.alias("key")).filter(pl.Series(is_ours, dtype=pl.Boolean)), strangers

    def marked(self, rows: pl.DataFrame, closed: Mapping[str, datetime]) -> pl.DataFrame:
        """Return fresh answers with `ingest.LATE` filled in.

        A recording's answers bear the wall clock, which says nothing about its keys: what is taken in after the
        decision is late. A live product's log may be shipped late, so there the time of the answer decides.

        Args:
            closed: when the decision of a key was made; keys without one are open.
        """
        closed_at = pl.col("key").replace_strict(dict(closed), default=None, return_dtype=ingest.MOMENT)
        is_late = pl.col("answered_at_utc") > closed_at if self.is_live else closed_at.is_not_null()
        return rows.with_columns(is_late.fill_null(value=False).alias(ingest.LATE))

    def merged(self, known: pl.DataFrame | None, fresh: pl.DataFrame) -> pl.DataFrame:
        """Return a key's answers, old and new, each once."""
        return ingest.merge(self.nothing() if known is None else known, fresh)

    def nothing(self) -> pl.DataFrame:
        """Return the rows of a key without answers."""
        return pl.DataFrame(schema=self.columns)

    def notes(self, rows: pl.DataFrame) -> Notes:
        """Return what the record of a key tells of its answers."""
        models = dict(rows["digest"].value_counts().sort("digest").iter_rows())
        fast = latency.counted(rows, self.latency_ms)
        return {"models": models, "late": int(rows[ingest.LATE].sum()), "measured": {"latency": fast}}

    def _keys(self, rows: pl.DataFrame, arrivals: Mapping[str, datetime]) -> pl.Series:
        if isinstance(self.grain, DailyGrain | HourlyGrain):
            return validate.key_column("service_time", partial(ingest.key_of, self.grain.key_of))(rows)
        keys = ingest.keys_by_arrival(self.grain, rows["service_time"].to_list(), arrivals)
        return pl.Series(keys, dtype=pl.String)
