"""Assign the rows of a table to keys by the moment in one column: the one way for assets, files and queries."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from platform_assets.base.keys import Grain, KeyProblem

if TYPE_CHECKING:
    import polars as pl

STEP_S = 900
"""Keys begin at no other moments: every time zone's offset is a multiple of a quarter of an hour."""


def utc(moments: pl.Series) -> pl.Series:
    """Return a column's moments in UTC; text, days and moments without a time zone are taken as moments of UTC.

    Raises:
        ValueError: it holds something else; the message continues the column's name.
        polars.exceptions.PolarsError: a text is not a moment.
    """
    import polars as pl

    kind = moments.dtype
    if kind == pl.String:
        # A text with an offset is the instant that it says.
        return moments.str.to_datetime(time_unit="us", time_zone="UTC")
    if kind == pl.Date:
        return moments.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(kind, pl.Datetime):
        raise ValueError(f"is {kind}; expected moments, to assign rows to keys.")
    moments = moments.cast(pl.Datetime("us", kind.time_zone))
    return moments.dt.replace_time_zone("UTC") if kind.time_zone is None else moments.dt.convert_time_zone("UTC")


def keys_of(moments: pl.Series, grain: Grain) -> pl.Series:
    """Return the key of each moment in UTC; null without a moment, and outside of the grain."""
    import polars as pl

    starts = moments.dt.truncate(f"{STEP_S}s")
    known = {start: _key_of(start, grain) for start in starts.unique().drop_nulls()}
    if not known:
        return pl.Series([None] * len(moments), dtype=pl.String)
    return starts.replace_strict(known, default=None, return_dtype=pl.String)


def _key_of(moment: datetime, grain: Grain) -> str | None:
    try:
        key: str = grain.key_of(moment)  # type: ignore[attr-defined]  # batches have no moments, and are refused before
    except (KeyProblem, OverflowError):
        return None
    return key if grain.contains(key) else None
