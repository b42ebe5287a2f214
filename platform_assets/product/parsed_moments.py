"""Read text as moments: ISO 8601, or in one format per column."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_ISO = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(\.\d{1,9})?)? ?(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?$"


def moments_of(cells: pl.Series, time_format: str | None = None) -> pl.Series:
    """Return the moments of text in UTC, null where it is not one.

    Args:
        cells: text.
        time_format: as polars and chrono write it, such as `%d.%m.%Y %H:%M`; None: ISO 8601, with a space or a T, to
            the day, minute, second or fraction. Without an offset it is UTC.
    """
    import polars as pl

    text = cells.cast(pl.String).str.strip_chars()
    if time_format is not None:
        if any(code in time_format for code in ("%z", "%#z", "%:z", "%s", "%+")):
            return text.str.to_datetime(time_format, time_unit="us", strict=False, time_zone="UTC")
        if not any(code in time_format for code in ("%H", "%I", "%T", "%R", "%X", "%c")):
            return text.str.to_date(time_format, strict=False).cast(pl.Datetime("us", "UTC"))
        return text.str.to_datetime(time_format, time_unit="us", strict=False).dt.replace_time_zone("UTC")
    if text.is_empty():
        return text.cast(pl.Datetime("us", "UTC"))
    day, minute, second, fraction, offset = (pl.col(name) for name in "12345")
    parts = text.alias("text").to_frame().select(pl.col("text").str.extract_groups(_ISO)).unnest("text")
    whole = pl.concat_str(
        day,
        pl.lit("T"),
        minute.fill_null("00:00"),
        second.fill_null(":00"),
        fraction.fill_null(""),
        offset.replace(["Z", "z", "UTC"], "+00:00").fill_null("+00:00"),
    )
    return parts.select(whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False)).to_series()


def moments_or_text(moments: pl.Series, cells: pl.Series) -> pl.Series:
    """Return the moments of cells, or, where a cell is none, text in all of them: validation names that cell.

    Args:
        moments: of `moments_of`.
        cells: text, whose name the result has.
    """
    import polars as pl

    if moments.null_count() == cells.null_count():
        return moments.alias(cells.name)
    plain = moments.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return pl.select(pl.coalesce(plain, cells)).to_series().alias(cells.name)
