"""Read moments that are written as text: in one format per column, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from platform_assets.product.parsed_moments import moments_of, moments_or_text
from platform_assets.store import rows_by_key

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class TimedRows:
    """Reads CSV or Parquet, and takes moments as they are written where the schema expects moments.

    Attributes:
        schema, multiline: of the source.
        by, time_format: of the channel; a moment of `by` without a time zone is one in UTC.
    """

    schema: Callable[[], pa.DataFrameSchema]
    multiline: tuple[str, ...] = ()
    by: str
    time_format: str | None = None

    def __call__(self, data: bytes) -> pl.DataFrame:
        """Return the rows; a column with a cell that is not a moment stays text, and validation names the cell.

        Raises:
            UnreadableFile: as `read_csv` does.
        """
        import polars as pl

        from platform_assets.data import delimited

        is_parquet = data.startswith(b"PAR1")
        rows = pl.read_parquet(BytesIO(data)) if is_parquet else delimited.read_csv(data, multiline=self.multiline)
        if self.by in rows.columns and rows.schema[self.by].is_temporal():
            rows = rows.with_columns(rows_by_key.utc(rows[self.by]))
        formats = {} if self.time_format is None else {self.by: self.time_format}
        return as_moments(rows, self.schema(), formats)


def as_moments(rows: pl.DataFrame, schema: pa.DataFrameSchema, formats: Mapping[str, str]) -> pl.DataFrame:
    """Return rows whose text is moments where the schema has moments; a column with another cell stays text.

    Args:
        formats: by column; ISO 8601 for others.
    """
    import polars as pl

    typed = {name: column.dtype.type for name, column in schema.columns.items() if column.dtype is not None}
    for name in rows.columns:
        if not isinstance(typed.get(name), pl.Datetime) or rows.schema[name] != pl.String:
            continue
        moments = _as(moments_of(rows[name], formats.get(name)), typed[name])
        rows = rows.with_columns(moments_or_text(moments, rows[name]))
    return rows


def _as(moments: pl.Series, dtype: pl.Datetime) -> pl.Series:
    import polars as pl

    moments = moments.cast(pl.Datetime(dtype.time_unit, "UTC"))
    if dtype.time_zone is None:
        return moments.dt.replace_time_zone(None)
    return moments.dt.convert_time_zone(dtype.time_zone)
