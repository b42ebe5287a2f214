"""Define what a product's answers are: their columns, and the notes of a key's record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import polars as pl

from platform_assets.data import answer_rows
from platform_assets.monitoring.latency import count_requests
from platform_assets.store.records.notes import Requests

if TYPE_CHECKING:
    from platform_assets.base.keys import Grain
    from platform_assets.product.fields import Field
    from platform_assets.product.tasks import Task


class Measured(TypedDict):
    """How fast the answers were. Depends on the machine and the moment, not on content."""

    latency: Requests


class Notes(TypedDict):
    """The number of a key's answers per bundle, and how many are late."""

    models: dict[str, int]
    late: int
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class AnsweredProduct:
    """What answers depend on; `latency_ms` is that of the product's `Service`."""

    grain: Grain
    fields: tuple[Field, ...]
    task: Task
    is_live: bool
    latency_ms: float

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns of answers."""
        return answer_rows.schema(self.fields, self.task)

    def empty(self) -> pl.DataFrame:
        """Return an empty frame with the columns of answers."""
        return pl.DataFrame(schema=self.columns)

    def notes(self, rows: pl.DataFrame) -> Notes:
        """Return the notes of a key's record."""
        # Sorted: polars counts in no fixed order, and two replays must write equal records.
        models = dict(rows["digest"].value_counts().sort("digest").iter_rows())
        requests = count_requests(rows, self.latency_ms)
        return {"models": models, "late": int(rows[answer_rows.LATE].sum()), "measured": {"latency": requests}}
