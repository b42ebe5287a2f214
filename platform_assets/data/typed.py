"""Hold delivered values in a schema's types: exactly, or not at all.

Decides which values of which types another type can hold, including the text of a cell. A schema's checks and rules are
`validate`; whether a file is complete is `landed`.

A value is held if its type and the schema's mean the same kind of thing, and casting there and back reproduces it (a
decimal to its own scale). So 1.7 is not an integer, 300 is not an Int8, and a moment without a time zone is not one in
UTC. A value that is not held leaves a null in its column and is kept in `UNHELD`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

UNHELD = "unheld_cells"
"""A raw row's cells that their columns cannot hold, as JSON: `{column: [value as text, delivered type]}`. Only files
with such a cell have this column.
"""

MOMENT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""How landed text writes a moment best: UTC, whole seconds, `2013-03-01T05:00:00Z`. `parsed` takes other ways too."""

SHOWN = 80
"""How many characters of a value or a type a reason quotes."""

_CLASSES = (bool, int, float, Decimal, str, bytes, datetime, date)
"""The classes of Python objects that polars has types for; subclasses come before their bases."""

_EDGES = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?"
_ZONE = r" ?(?:Z|UTC|[+-]\d\d(?::?\d\d)?)$"
_DIGITS = {"ms": 3, "us": 6, "ns": 9}
"""How many digits of a second a moment of each unit has."""

_TYPE_NAMES = {pl.Boolean: "true or false", pl.Date: "a date", pl.String: "text", pl.Binary: "bytes"}


def targets(
    frames: Sequence[pl.DataFrame], expected: Mapping[str, pl.DataType], stored: Mapping[str, pl.DataType] | None = None
) -> dict[str, pl.DataType]:
    """Return the types in which raw frames' columns are stored, the same for all frames.

    They are the schema's types, with two exceptions: text stays text (it is parsed when it is validated), and a column
    delivered in the table's type keeps that type.

    Args:
        frames: as delivered, each with all columns.
        expected: the schema's types.
        stored: the types the table has, if it exists.
    """
    types = {}
    for name, dtype in expected.items():
        delivered = {_plain(frame.schema[name]) for frame in frames}
        # A table has one type per column: a key whose file says Int64 next to keys of Float64 was refused as a whole.
        current = (stored or {}).get(name, pl.String() if delivered == {pl.String()} else dtype)
        types[name] = current if delivered <= {current} else dtype
    return types


def hold(frame: pl.DataFrame, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the frame with its columns in these types; adds `UNHELD` if some cell cannot be held.

    Args:
        frame: rows as delivered; existing contents of `UNHELD` are kept.
        types: by column, as `targets` returns them.
    """
    columns, unheld = [], dict[int, dict[str, list[str]]]()
    for name, dtype in types.items():
        delivered = frame[name]
        column, is_lost = _held(delivered, dtype)
        columns.append(column.alias(name))
        if is_lost is not None and is_lost.any():
            rows = is_lost.arg_true()
            for row, text in zip(rows, _texts(delivered.gather(rows)), strict=True):
                unheld.setdefault(row, {})[name] = [text, str(delivered.dtype)]
    result = frame.with_columns(columns)
    if not unheld:
        return result
    before = frame[UNHELD] if UNHELD in frame.columns else pl.Series([None] * frame.height, dtype=pl.String)
    cells = [
        json.dumps({**json.loads(old or "{}"), **unheld[row]}, ensure_ascii=False) if row in unheld else old
        for row, old in enumerate(before)
    ]
    return result.with_columns(pl.Series(UNHELD, cells, dtype=pl.String))


def parsed(name: str, dtype: Any) -> pl.Expr:
    """Return the expression that parses a text column as a type; unparsable cells become null.

    A moment names its zone, `Z` or an offset such as `+01:00`, and stands for that instant, whatever zone the type has.
    """
    cell = pl.col(name)
    if dtype == pl.Boolean:
        return cell.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    if isinstance(dtype, pl.Datetime):
        # `bounded` names its argument twice, and polars would call a function of ours for each.
        return cell.map_batches(lambda texts: _moments(texts, dtype), return_dtype=dtype)
    if dtype == pl.Date:
        cell = cell.str.to_date("%Y-%m-%d", strict=False)
    elif dtype.is_nested():
        return pl.lit(None, dtype=dtype)
    else:
        cell = cell.cast(dtype, strict=False)
    return bounded(cell, dtype)


def bounded(cell: pl.Expr, dtype: Any) -> pl.Expr:
    """Return the expression that nulls what no rule can judge: infinities, and times that Python cannot represent."""
    if dtype.is_float():
        return pl.when(cell.is_finite()).then(cell)
    if isinstance(dtype, pl.Datetime):
        zone = None if dtype.time_zone is None else UTC
        low, high = (pl.lit(edge.replace(tzinfo=zone)).cast(dtype, strict=False) for edge in _EDGES)
        # In nanoseconds neither edge is representable (null), and no moment lies beyond them.
        return pl.when(cell.is_between(low, high).fill_null(True)).then(cell)
    return pl.when(cell.is_between(date.min, date.max)).then(cell) if dtype == pl.Date else cell


def unparsed(name: str, cell: Any, dtype: Any) -> tuple[str, str]:
    """Return why a cell cannot be parsed: with its value and an example of the expected type, and without the value."""
    if isinstance(dtype, pl.Datetime):
        expected = "a moment such as 2013-03-01T05:00:00Z" + _doubt(cell, dtype)
    elif dtype.is_integer():
        expected = "a whole number"
    elif dtype.is_float():
        expected = "a finite number"
    else:
        expected = {pl.Boolean: "true or false", pl.Date: "a date such as 2013-03-01"}.get(dtype, f"a value of {dtype}")
    return f"{name} is {cell!r}, which is not {expected}", f"{name} is not {expected}"


def _moments(texts: pl.Series, dtype: pl.Datetime) -> pl.Series:
    """Parse texts as moments; null where one names no zone, or is finer than the type."""
    unit, zone = dtype.time_unit, dtype.time_zone
    moments = texts.str.to_datetime(MOMENT_FORMAT, time_unit=unit, time_zone="UTC", strict=False)
    others = (moments.is_null() & texts.is_not_null()).arg_true()
    if len(others):  # rarely: they cost four times as much
        cell = pl.col(texts.name)
        is_moment = cell.str.contains(_TIME + _ZONE) & ~cell.str.contains(_finer(unit))
        iso = cell.str.replace(" ", "T", literal=True).str.replace(r" ?UTC$", "Z")
        read = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit=unit, time_zone="UTC", strict=False)
        moments.scatter(others, texts.gather(others).to_frame().select(pl.when(is_moment).then(read)).to_series())
    moment = pl.col(texts.name)
    local = moment.dt.replace_time_zone(None) if zone is None else moment.dt.convert_time_zone(zone)
    return moments.to_frame().select(bounded(local, dtype)).to_series()


def _finer(unit: str) -> str:
    """Return a pattern of seconds with more digits than a unit has; zeros at their end say nothing."""
    return rf"\.\d{{{_DIGITS[unit]}}}\d*[1-9]"


def _doubt(cell: Any, dtype: pl.Datetime) -> str:
    """Return what keeps a text that reads like a moment from being one; empty for any other text."""
    if re.search(_TIME + "$", cell):
        return ": it names no time zone, as Z or +01:00 do"
    if re.search(_TIME + _ZONE, cell) and re.search(_finer(dtype.time_unit), cell):
        return f": its second has more than {_DIGITS[dtype.time_unit]} digits"
    return ""


def reasons(cells: str, expected: Mapping[str, pl.DataType]) -> tuple[str, str]:
    """Return why a row's `UNHELD` cells cannot be held: what came and is expected instead, and without what came."""
    every = [
        unparsed(name, text, expected[name])
        if delivered == str(pl.String)
        else (
            f"{name} is {_short(text)} ({_short(delivered)}), expected {_expected(expected[name])}",
            f"{name} is not as expected: {_expected(expected[name])}",
        )
        for name, (text, delivered) in json.loads(cells).items()
    ]
    return "; ".join(reason for reason, _ in every), "; ".join(kind for _, kind in every)


def with_unheld(row: str, cells: str | None) -> str:
    """Return a row's JSON text with its `UNHELD` cells restored to their columns, as text."""
    if cells is None:
        return row
    values = {name: text for name, (text, _) in json.loads(cells).items()}
    return json.dumps({**json.loads(row), **values}, ensure_ascii=False)


def as_json(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a table column in the form that `json_encode` takes: bytes as base64."""
    return _encoded(pl.col(name), dtype)


def _encoded(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.List):
        inner: Any = dtype.inner
        return cell.list.eval(_encoded(pl.element(), inner)) if _leaf(inner) == pl.Binary else cell
    # polars' json_encode() panics at bytes.
    return cell.bin.encode("base64") if dtype == pl.Binary else cell


def _leaf(dtype: Any) -> Any:
    return _leaf(dtype.inner) if isinstance(dtype, pl.List) else dtype


def _expected(dtype: Any) -> str:
    if isinstance(dtype, pl.List):
        return f"a list, each item {_expected(dtype.inner)}"
    if isinstance(dtype, pl.Datetime):
        return f"a moment {'with its' if dtype.time_zone else 'without a'} time zone, before the year 10000"
    if dtype.is_integer():
        return f"a whole number that {dtype} holds"
    if dtype.is_numeric():
        return f"a number that {dtype} holds exactly"
    return _TYPE_NAMES.get(dtype, str(dtype))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _plain(dtype: pl.DataType) -> pl.DataType:
    return pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else dtype


def _held(column: pl.Series, dtype: Any) -> tuple[pl.Series, pl.Series | None]:
    """Return the column in a type, null where it cannot be held, and a mask of those cells; None if there are none."""
    delivered = column.dtype
    if delivered == dtype:
        if not delivered.is_temporal():
            return column, None
        in_bounds = column.to_frame().select(bounded(pl.col(column.name), delivered).alias(column.name)).to_series()
        return in_bounds, in_bounds.is_null() & column.is_not_null()
    if delivered == pl.Object:
        return _held_objects(column, dtype)
    if _plain(delivered) == pl.String():
        return _held_text(column.cast(pl.String), dtype)
    if not _is_alike(delivered, dtype):
        return pl.Series(column.name, [None] * len(column), dtype=dtype), column.is_not_null()
    if delivered == pl.Binary:
        # Decoded cell by cell, because polars would refuse the whole column for one bad cell.
        texts = [None if cell is None else cell.decode("utf-8", errors="replace") for cell in column]
        is_lost = [text is not None and text.encode() != cell for cell, text in zip(column, texts, strict=True)]
        held_texts = [None if lost else text for text, lost in zip(texts, is_lost, strict=True)]
        return pl.Series(column.name, held_texts, dtype=pl.String), pl.Series(is_lost, dtype=pl.Boolean)
    try:
        cast = column.cast(dtype, strict=False)
        # A cast of polars makes 1 of 1.7 without an error.
        is_same = cast.cast(delivered, strict=False).eq_missing(column)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [None] * len(column), dtype=dtype), column.is_not_null()
    value = bounded(pl.lit(cast), dtype) if dtype.is_temporal() else pl.lit(cast)
    result = pl.select(pl.when(is_same).then(value).alias(column.name)).to_series()
    return result, result.is_null() & column.is_not_null()


def _held_text(column: pl.Series, dtype: Any) -> tuple[pl.Series, pl.Series | None]:
    if dtype == pl.String:
        return column, None
    parsed_column = column.to_frame().select(parsed(column.name, dtype).alias(column.name)).to_series()
    return parsed_column, parsed_column.is_null() & column.is_not_null()


def _held_objects(column: pl.Series, dtype: Any) -> tuple[pl.Series, pl.Series]:
    """Hold Python objects in a type: the values of each class, as if they were a column of their own."""
    values = column.to_list()
    result: list[Any] = [None] * len(values)
    is_lost = [value is not None for value in values]
    waiting = [[at for at, value in enumerate(values) if _class_of(value) is kind] for kind in _CLASSES]
    while waiting:
        rows = waiting.pop()
        try:
            part = pl.Series([values[at] for at in rows])
        # One integer that no type holds fails its whole class.
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, RuntimeError):
            waiting += [[at] for at in rows] if len(rows) > 1 else []
            continue
        cast, lost = _held(part, dtype)
        for at, row in enumerate(rows):
            result[row], is_lost[row] = cast[at], lost is not None and lost[at]
    return pl.Series(column.name, result, dtype=dtype), pl.Series(is_lost, dtype=pl.Boolean)


def _class_of(value: Any) -> type | None:
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return next((kind for kind in _CLASSES if isinstance(value, kind)), None)


def _is_alike(delivered: Any, expected: Any) -> bool:
    """Whether values of two types mean the same kind of thing, so that a cast invents nothing."""
    if delivered in (expected, pl.Null):
        return True
    if isinstance(expected, pl.List):
        return isinstance(delivered, pl.List | pl.Array) and _is_alike(delivered.inner, expected.inner)
    if isinstance(expected, pl.Datetime):
        # A moment without a zone is ambiguous, and a date has no time of day.
        return isinstance(delivered, pl.Datetime) and (delivered.time_zone is None) == (expected.time_zone is None)
    if expected == pl.Date:
        return isinstance(delivered, pl.Datetime) and delivered.time_zone is None
    if expected == pl.String:
        # A float has more than one spelling: in a column with a null, the id 7 is delivered as 7.0.
        return delivered.is_integer() or delivered == pl.Binary
    if expected == pl.Binary:
        return False
    numbers = [dtype == pl.Boolean or dtype.is_numeric() for dtype in (delivered, expected)]
    return all(numbers) or (isinstance(expected, pl.Duration) and isinstance(delivered, pl.Duration))


def _texts(cells: pl.Series) -> Iterable[str]:
    """Return cells as text; times that neither Python nor polars' calendar can represent as a count since 1970."""
    dtype = cells.dtype
    if dtype == pl.Binary:
        return [base64.b64encode(cell).decode() for cell in cells]
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "days"
        dates = pl.select(bounded(pl.lit(cells), dtype).cast(pl.String)).to_series()
        return dates.fill_null(cells.to_physical().cast(pl.String) + f" {unit} since 1970")
    if isinstance(dtype, pl.Duration):
        return cells.dt.to_string("iso")
    if dtype.is_nested() or dtype == pl.Object:
        plain = cells if dtype == pl.Object else cells.to_physical()
        return [json.dumps(cell, default=str, ensure_ascii=False) for cell in plain.to_list()]
    return cells.cast(pl.String)
