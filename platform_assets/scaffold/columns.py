"""Tell what a column holds: its kind, nulls, range, format of dates, and spellings that only this file knows.

Pure functions on one polars column each. Text of a CSV file and typed columns of Parquet or a database give the same
record where they hold the same values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import time
from typing import Any, Literal

import polars as pl

Kind = Literal["moment", "number", "flag", "category", "id", "text", "constant", "empty"]
"""A `flag` is true or false. An `id` names something and means nothing; `text` has too many values for a category."""

NULL_WORDS = ("NA", "N/A", "NaN", "nan", "NULL", "null", "None", "?")
ISO_FORMATS = (
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
)
"""Formats of moments that a source without a schema reads by itself."""
FORMATS = (
    *ISO_FORMATS,
    *(day + hour for day in ("%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y") for hour in (" %H:%M:%S", " %H:%M", "")),
    *("%m/%d/%y", "%d/%m/%y"),
    *("%b %d %Y", "%d %b %Y", "%d-%b-%Y", "%B %d, %Y", "%b %d, %Y"),
)
"""Formats of a moment, the first one that fits all values counts. Without a zone a moment is taken as UTC."""
BARE_FORMATS = ("%Y%m%d", "%Y")
"""Formats of digits alone; they are numbers unless somebody says that they are moments."""

FLAGS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
MOST_CATEGORIES, LEAST_PER_CATEGORY = 500, 5
"""A category has at most so many values, and at least so many rows each on average."""
MOST_LENGTH = 40
"""Characters of a category on average; what is longer is text."""
MOST_SHOWN = 20
FEW_CATEGORIES = 10
"""So many values are a category, however few rows they have."""

_ID = re.compile(r"(^|[\W_])(id|ids|uuid|guid|key|code|nr|no|number|index|rownames|unnamed[\W_]*\d*)$|^$")
_ID_VALUE = re.compile(r"^(?:[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9a-fA-F]{16,})$")
_LEADING_ZERO = r"^[+-]?0\d"
_DATE = r"^\d{4}-\d{1,2}-\d{1,2}$|^\d{1,2}\.\d{1,2}\.\d{4}$"
_DECIMALS = re.compile(r"\.(\d+?)0*$")
MOST_DECIMALS = 4


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column holds.

    Attributes:
        name: as the file writes it.
        kind: what its values are.
        rows: of the table.
        nulls: rows without a value, null words included.
        distinct: different values, nulls left out.
        is_whole: whether all numbers are whole.
        decimals: of the numbers, at most `MOST_DECIMALS`; None where some have more.
        low: the smallest number, or the first moment as ISO text.
        high: the largest number, or the last moment.
        values: as text, the most frequent first, at most `MOST_SHOWN`.
        format: of the moments' text; None for typed moments.
        other_format: that the rest of the moments has, where one does not fit all.
        has_hours: whether some moments are within a day, not at its beginning.
        null_words: that stand for null, as found.
        is_text: whether the file delivers it as text.
    """

    name: str
    kind: Kind
    rows: int
    nulls: int = 0
    distinct: int = 0
    is_whole: bool = False
    decimals: int | None = None
    low: Any = None
    high: Any = None
    values: tuple[str, ...] = ()
    format: str | None = None
    other_format: str | None = None
    has_hours: bool = False
    null_words: tuple[str, ...] = ()
    is_text: bool = True


def profile(frame: pl.DataFrame, *, moments: Sequence[str] = ()) -> dict[str, Column]:
    """Return the record of each column.

    Args:
        frame: the table's rows, of text or typed values.
        moments: columns that somebody says are moments, digits alone included.
    """
    return {name: profile_column(frame[name], is_moment=name in moments) for name in frame.columns}


def profile_column(column: pl.Series, *, is_moment: bool = False) -> Column:
    """Return the record of one column."""
    name, rows, is_text = column.name, len(column), column.dtype in (pl.String, pl.Categorical, pl.Enum)
    words: tuple[str, ...] = ()
    if is_text:
        column = column.cast(pl.String).str.strip_chars()
        words = tuple(word for word in NULL_WORDS if (column == word).any())
        column = without_words(column, words)
    present = column.drop_nulls()
    if present.dtype.is_float():
        present = present.filter(present.is_finite())
    numbers = _numbers(present)
    result = Column(
        name=name,
        kind="empty" if present.is_empty() else "text",
        rows=rows,
        nulls=rows - len(present),
        # Of numbers by value, as a typed column has them: the text has two for 0.0 and -0.0.
        distinct=(present if numbers is None else numbers).n_unique() if _is_plain(present.dtype) else 0,
        null_words=words,
        is_text=is_text,
    )
    if present.is_empty() or not _is_plain(present.dtype):
        return result
    if (moment := _moment(result, present, is_moment=is_moment)) is not None:
        return moment
    if result.distinct == 1 and not result.nulls:  # whether there is a value may say something
        return replace(result, kind="constant", values=(str(present[0]),))
    if present.dtype == pl.Boolean:
        return replace(result, kind="flag", values=("true", "false"))
    texts = present.cast(pl.String)
    counts = texts.value_counts(name="n").sort("n", name, descending=[True, False])
    values = tuple(counts[name].head(MOST_SHOWN))
    if numbers is not None:
        is_whole, distinct = bool((numbers == numbers.round()).all()), numbers.n_unique()
        low, high = number(numbers.min()), number(numbers.max())
        # Whole numbers are names by the column's name, or because they count the rows.
        is_counting = rows > 2 and distinct == len(numbers) == high - low + 1
        is_id = is_whole and (is_counting or (is_id_name(name) and distinct > FEW_CATEGORIES))
        found = [_DECIMALS.search(text) for text in present.head(10_000).cast(pl.String)]
        most = max((len(match[1]) for match in found if match), default=0)
        decimals = most if most <= MOST_DECIMALS else None
        result = replace(result, decimals=decimals, is_whole=is_whole, low=low, high=high)
        return replace(result, kind="id" if is_id else "number", values=values)
    return replace(result, kind=_kind_of_text(name, texts, result.distinct), values=values)


def without_words(column: pl.Series, words: Sequence[str]) -> pl.Series:
    """Return the column with null where its text is empty or one of these words."""
    return column.replace(["", *words], [None] * (len(words) + 1))


def as_moments(column: pl.Series, profile: Column) -> pl.Series:
    """Return a column's moments in UTC; null where its text has another format."""
    if profile.format is None:
        return _in_utc(column)
    texts = without_words(column.cast(pl.String).str.strip_chars(), profile.null_words)
    return _parsed(texts, profile.format)


def as_numbers(column: pl.Series, profile: Column) -> pl.Series:
    """Return a column's numbers; null where there is none."""
    if profile.is_text:
        column = without_words(column.cast(pl.String).str.strip_chars(), profile.null_words)
    numbers = column.cast(pl.Float64, strict=False)
    return numbers.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()


def is_id_name(name: str) -> bool:
    """Tell whether a name says that the column names something: `order_id`, `Customer ID`, `customerId`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _ID.search(snake.strip()) is not None


def is_truth(values: Sequence[str]) -> bool:
    """Tell whether two texts are yes and no, as a source without a schema reads them by itself."""
    return {value.lower() for value in values} in (*FLAGS, {"1", "0"}, {"1.0", "0.0"})


def _is_plain(dtype: pl.DataType) -> bool:
    return not (dtype.is_nested() or dtype in (pl.Object, pl.Binary))


def _moment(column: Column, present: pl.Series, *, is_moment: bool) -> Column | None:
    """Return the record of a column of moments, or None where it holds none."""
    if present.dtype in (pl.Date, pl.Datetime):
        return _with_edges(column, _in_utc(present))
    if present.dtype == pl.Time or present.dtype == pl.Boolean or present.dtype.is_float():
        return None
    texts = present.cast(pl.String)
    first = texts.head(1_000)
    if not is_moment and first.str.contains(r"^[\d.+-]+$").all() and not first.str.contains(_DATE).any():
        return None
    formats, head = (*FORMATS, *BARE_FORMATS) if is_moment else FORMATS, texts.head(200)
    shares: dict[str, float] = {
        form: float(_parsed(texts, form).is_not_null().sum()) / len(texts)
        for form in formats
        if _parsed(head, form).is_not_null().any()  # the rest need not be tried on all values
    }
    best = max(shares, key=lambda form: shares[form], default=None)
    if best is None or shares[best] < (0.5 if is_moment else 0.9):
        return None
    moments = _parsed(texts, best)
    rest = texts.filter(moments.is_null())
    other = next((form for form in FORMATS if len(rest) and _parsed(rest, form).is_not_null().all()), None)
    if len(rest) and other is None and not is_moment:
        return None
    other = other or (f"{rest[0]!r}" if len(rest) else None)
    return replace(_with_edges(column, moments), format=best, other_format=other)


def _with_edges(column: Column, moments: pl.Series) -> Column:
    first, last = (pl.Series([edge]).dt.to_string("iso:strict")[0] for edge in (moments.min(), moments.max()))
    has_hours = bool((moments.dt.time() != time(0)).any())
    return replace(column, kind="moment", low=first, high=last, has_hours=has_hours)


def _parsed(texts: pl.Series, form: str) -> pl.Series:
    if form == "%Y":
        return _parsed(texts.str.extract(r"^(\d{4})$") + "-01-01", "%Y-%m-%d")
    if "%Y" in form:  # polars takes 24 for the year 24
        texts = texts.to_frame().select(pl.when(pl.first().str.contains(r"\d{4}")).then(pl.first())).to_series()
    if "%H" not in form:
        return texts.str.to_date(form, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if form.endswith("Z") or "z" not in form:
        return texts.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC")
    return texts.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)


def _in_utc(moments: pl.Series) -> pl.Series:
    moments = moments.cast(pl.Datetime("us")) if moments.dtype == pl.Date else moments.dt.cast_time_unit("us")
    zone = moments.dtype.time_zone if isinstance(moments.dtype, pl.Datetime) else None
    return moments.dt.replace_time_zone("UTC") if zone is None else moments.dt.convert_time_zone("UTC")


def _numbers(present: pl.Series) -> pl.Series | None:
    if present.dtype.is_numeric():
        return present.cast(pl.Float64) + 0.0  # -0.0 is 0.0, as typed values and as text
    if present.dtype != pl.String or present.str.contains(_LEADING_ZERO).any():  # 00123 is a name
        return None
    numbers = present.cast(pl.Float64, strict=False) + 0.0
    return numbers if numbers.is_not_null().all() and numbers.is_finite().all() else None


def number(value: Any) -> float:
    """Return a statistic of numbers, which polars types as anything."""
    return float(value)


def _kind_of_text(name: str, texts: pl.Series, distinct: int) -> Kind:
    if distinct == 2 and {value.lower() for value in texts.unique()} in FLAGS:
        return "flag"
    if texts.head(100).str.contains(_ID_VALUE.pattern).all():
        return "id"
    if distinct > FEW_CATEGORIES and (
        is_id_name(name) or (distinct == len(texts) and number(texts.str.len_chars().max()) <= 20)
    ):
        return "id"
    is_short = number(texts.str.len_chars().mean()) <= MOST_LENGTH
    is_few = distinct <= FEW_CATEGORIES or (distinct <= MOST_CATEGORIES and distinct * LEAST_PER_CATEGORY <= len(texts))
    return "category" if is_short and is_few else "text"
