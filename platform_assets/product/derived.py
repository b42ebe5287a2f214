"""Derive what a product of one table leaves out: the types of its columns, its feature rows and its labels.

Each is a frozen dataclass that is called like the function a person would have written: its members count in digests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from platform_assets.product.parsed_moments import moments_of, moments_or_text

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

    from platform_assets.base.keys import Grain
    from platform_assets.product.windows import Tables, Window

_TRUTH = dict.fromkeys(("t", "yes", "y", "1", "1.0"), "true")
_TRUTH |= dict.fromkeys(("f", "no", "n", "0", "0.0"), "false")
ABOUT = ("key", "entity", "service_time", "asked_at")
"""The columns of `features` besides the fields."""
Kind = Literal["float", "int", "bool", "category", "moment"]


@dataclass(frozen=True, kw_only=True)
class TypedColumns:
    """A schema without rules: names, kinds, whether null is valid, and the lowest and highest values of some."""

    columns: tuple[tuple[str, Kind, bool], ...]
    ranges: tuple[tuple[str, float | None, float | None], ...] = ()

    __name__ = "schema"

    def __call__(self) -> pa.DataFrameSchema:
        """Return the pandera schema."""
        import pandera.polars as pa
        import polars as pl

        types: dict[str, Any] = {
            "float": pl.Float64,
            "int": pl.Int64,
            "bool": pl.Boolean,
            "category": pl.String,
            "moment": pl.Datetime("us", "UTC"),
        }
        checks = {
            name: pa.Check.in_range(-math.inf if low is None else low, math.inf if high is None else high)
            for name, low, high in self.ranges
        }
        return pa.DataFrameSchema(
            {name: pa.Column(types[kind], checks.get(name), nullable=null) for name, kind, null in self.columns}
        )


@dataclass(frozen=True, kw_only=True)
class LenientCells:
    """A reader for a schema of `TypedColumns`: yes, 1 and True are true, and a moment without a zone is in UTC.

    Attributes:
        read: of the source, or of CSV.
        flags, moments: names of columns.
    """

    read: Callable[[bytes], pl.DataFrame]
    flags: tuple[str, ...]
    moments: tuple[str, ...]

    def __call__(self, data: bytes) -> pl.DataFrame:
        """Return the rows of a delivery; a cell that says neither stays as it came."""
        import polars as pl

        rows = self.read(data)
        texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
        return rows.with_columns(
            *(_flag(name) for name in self.flags if name in texts),
            *(_moment(rows[name]) for name in self.moments if name in rows.columns),
        )


def _flag(name: str) -> pl.Expr:
    import polars as pl

    text = pl.col(name).str.strip_chars().str.to_lowercase()
    return text.replace(_TRUTH).alias(name)


def _moment(cells: pl.Series) -> pl.Series:
    import polars as pl

    dtype = cells.dtype
    if dtype == pl.Date or (isinstance(dtype, pl.Datetime) and dtype.time_zone is None):
        return cells.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return moments_or_text(moments_of(cells), cells) if dtype == pl.String else cells


@dataclass(frozen=True, kw_only=True)
class SomeColumns:
    """A person's schema without some columns, or with some columns alone, then without rules across columns.

    Attributes:
        schema: as `Source.schema`.
        without: the columns that are left out.
        only: the columns that are kept; empty for all.
    """

    schema: Callable[[], pa.DataFrameSchema]
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def __name__(self) -> str:
        """The name of the person's function, for messages."""
        return getattr(self.schema, "__name__", "schema")

    def __call__(self) -> pa.DataFrameSchema:
        """Return the pandera schema.

        Raises:
            ValueError: the person's schema lacks a column.
        """
        import pandera.polars as pa

        schema = self.schema()
        if missing := [name for name in (*self.without, *self.only) if name not in schema.columns]:
            raise ValueError(
                f"{self.__name__}() has no column {missing[0]!r}; it has {', '.join(schema.columns)}. Add the column, "
                "or fix what names it, in the product's file."
            )
        if self.only:
            return pa.DataFrameSchema({name: schema.columns[name] for name in self.only})
        return schema.remove_columns(list(self.without))


@dataclass(frozen=True, kw_only=True)
class RowsAsDelivered:
    """Features that are the columns of one source, row by row, asked about at the moment of the row.

    Attributes:
        module: the product's module: there is no function of its own by which to tell it.
        source: whose rows they are.
        time: column with the moment of a row.
        entity: column with the id of what a row is about; None for its place in its key's delivery.
        fields: names of columns.
    """

    module: str
    source: str
    time: str
    entity: str | None
    fields: tuple[str, ...]

    def __call__(self, tables: Tables, window: Window) -> pl.DataFrame:
        """Return the rows of the window's keys; see `Product.features`."""
        return asked(tables[self.source], window, time=self.time, entity=self.entity).select(*ABOUT, *self.fields)


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """Labels that are a column of the rows.

    Attributes:
        column: their name.
        entity: as in `RowsAsDelivered`.
        kind: of the task.
        grain, delay: a label of days or hours is known at the end of the key `delay` keys after its own.
        known_at: column with that moment, for batches, which have no end.
    """

    column: str
    entity: str | None
    kind: str
    grain: Grain
    delay: int
    known_at: str

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the labels; see `Product.label`."""
        import polars as pl

        types: dict[str, Any] = {"binary": pl.Int8, "multi_class": pl.String, "regression": pl.Float64}
        return rows.select(
            "key",
            id_of_row(self.entity).alias("entity"),
            pl.col(self.column).cast(types[self.kind]).alias("label"),
            self._known_at(rows["key"].unique().to_list()).alias("known_at"),
        )

    def _known_at(self, keys: list[str]) -> pl.Expr:
        import polars as pl

        grain = self.grain.endless
        ends = {key: grain.instant_after(grain.shift(key, self.delay)) for key in keys}
        # What is known at the instant of a cutoff is not used by it, and these labels are to be.
        known = {key: end - timedelta(microseconds=1) for key, end in ends.items() if end is not None}
        if len(known) < len(keys):
            return pl.col(self.known_at)
        return pl.col("key").replace_strict(known, return_dtype=pl.Datetime("us", "UTC"))


def asked(rows: pl.DataFrame, window: Window, *, time: str, entity: str | None = None) -> pl.DataFrame:
    """Return the rows of a window's keys with the columns of `ABOUT`: each is asked about at its own moment.

    Args:
        rows: of one source.
        window: see `Product.features`.
        time: column with the moment of a row.
        entity: column with the id of what a row is about; None for its place in its key's delivery.
    """
    import polars as pl

    moment = pl.col(time)
    return rows.filter(pl.col("key").is_in(window.keys)).with_columns(
        id_of_row(entity).alias("entity"), moment.alias("service_time"), moment.alias("asked_at")
    )


def id_of_row(entity: str | None) -> pl.Expr:
    """Return the id of what a row is about: that of a column, or its key and its place in its key's delivery."""
    import polars as pl

    if entity is not None:
        return pl.col(entity).cast(pl.String)
    return pl.format("{}-{}", pl.col("key"), pl.col("source_offset") + 1)
