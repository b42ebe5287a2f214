"""Hold delivered values in the types of a schema: exactly, or not at all.

Belongs here: which values of which types another type can hold, text of a cell included. Does not belong here: a
schema's checks and rules (`validate`), or whether a file is whole (`landed`).

A value is held when the type that came and the type that is wanted mean the same kind of thing, and casting there and
back gives it again (a decimal to its own scale). So 1.7 is not a whole number, 300 is not an Int8, and a moment without
a time zone is not one in UTC. What is not held leaves a null in its column and stands in `UNHELD`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

UNHELD = "unheld_cells"
"""Of a raw row the cells that their columns cannot hold, as JSON: `{column: [value as text, type that came]}`. Only
files with such a cell have this column."""

MOMENT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""How landed text writes a moment: UTC, whole seconds, `2013-03-01T05:00:00Z`."""

SHOWN = 80
"""How many characters of a value or a type a reason quotes."""

_CLASSES = (bool, int, float, Decimal, str, bytes, datetime, date)
"""The classes of Python objects that polars has types for; a subclass comes before its base."""

_EDGES = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

_WORDS = {pl.Boolean: "true or false", pl.Date: "a date", pl.String: "text", pl.Binary: "bytes"}


def targets(
    frames: Sequence[pl.DataFrame], wanted: Mapping[str, pl.DataType], stored: Mapping[str, pl.DataType] | None = None
) -> dict[str, pl.DataType]:
    """Return the types in which the columns of raw frames are kept, the same for all of them.

    They are the schema's, but text stays text (it is parsed when it is judged), and a column that comes as the table
    has it stays so.

    Args:
        frames: as they came, each with all columns.
        wanted: the schema's types.
        stored: the types that the table has, where there is one.
    """
    found = {}
    for name, dtype in wanted.items():
        came = {_plain(frame.schema[name]) for frame in frames}
        kept = (stored or {}).get(name, pl.String() if came == {pl.String()} else dtype)
        found[name] = kept if came <= {kept} else dtype
    return found


def hold(frame: pl.DataFrame, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the frame with its columns in these types, and with `UNHELD` if there is a cell that has no place there.

    Args:
        frame: rows as they came; of `UNHELD` what stands there stays.
        types: by column, as `targets` returns them.
    """
    columns, unheld = [], dict[int, dict[str, list[str]]]()
    for name, dtype in types.items():
        came = frame[name]
        column, is_lost = _held(came, dtype)
        columns.append(column.alias(name))
        if is_lost is not None and is_lost.any():
            places = is_lost.arg_true()
            for place, text in zip(places, _texts(came.gather(places)), strict=True):
                unheld.setdefault(place, {})[name] = [text, str(came.dtype)]
    held = frame.with_columns(columns)
    if not unheld:
        return held
    before = frame[UNHELD] if UNHELD in frame.columns else pl.Series([None] * frame.height, dtype=pl.String)
    cells = [
        json.dumps({**json.loads(old or "{}"), **unheld[place]}, ensure_ascii=False) if place in unheld else old
        for place, old in enumerate(before)
    ]
    return held.with_columns(pl.Series(UNHELD, cells, dtype=pl.String))


def parsed(name: str, wanted: Any) -> pl.Expr:
    """Return the expression that reads a column of text as a type; what does not parse is null."""
    cell = pl.col(name)
    if wanted == pl.Boolean:
        return cell.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    if isinstance(wanted, pl.Datetime):
        cell = cell.str.to_datetime(
            MOMENT_FORMAT, time_unit=wanted.time_unit, time_zone=wanted.time_zone, strict=False, ambiguous="null"
        )
    elif wanted == pl.Date:
        cell = cell.str.to_date("%Y-%m-%d", strict=False)
    elif wanted.is_nested():
        return pl.lit(None, dtype=wanted)
    else:
        cell = cell.cast(wanted, strict=False)
    return bounded(cell, wanted)


def bounded(cell: pl.Expr, dtype: Any) -> pl.Expr:
    """Return the expression that nulls what no rule can be told about: infinities, and times that Python has not."""
    if dtype.is_float():
        return pl.when(cell.is_finite()).then(cell)
    if isinstance(dtype, pl.Datetime):
        zone = None if dtype.time_zone is None else UTC
        low, high = (pl.lit(edge.replace(tzinfo=zone)).cast(dtype, strict=False) for edge in _EDGES)
        # Nanoseconds have neither edge, and no moment beyond them.
        return pl.when(cell.is_between(low, high).fill_null(True)).then(cell)
    return pl.when(cell.is_between(date.min, date.max)).then(cell) if dtype == pl.Date else cell


def unparsed(name: str, cell: Any, dtype: Any) -> str:
    """Return why a cell is not read: what came, and what a type is written like."""
    if isinstance(dtype, pl.Datetime):
        expected = "moment such as 2013-03-01T05:00:00Z"
    elif dtype.is_integer():
        expected = "whole number"
    elif dtype.is_float():
        expected = "finite number"
    else:
        expected = {pl.Boolean: "true or false", pl.Date: "date such as 2013-03-01"}.get(dtype, str(dtype))
    return f"{name} is {cell!r}, which is no {expected}"


def reasons(cells: str, wanted: Mapping[str, pl.DataType]) -> str:
    """Return why a row's `UNHELD` cells have no place: what came, and what is expected instead."""
    return "; ".join(
        unparsed(name, text, wanted[name])
        if came == str(pl.String)
        else f"{name} is {_short(text)} ({_short(came)}), expected {_expected(wanted[name])}"
        for name, (text, came) in json.loads(cells).items()
    )


def with_unheld(row: str, cells: str | None) -> str:
    """Return a row's JSON text with its `UNHELD` cells in their columns, as text."""
    if cells is None:
        return row
    values = {name: text for name, (text, _) in json.loads(cells).items()}
    return json.dumps({**json.loads(row), **values}, ensure_ascii=False)


def as_json(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column of a type that tables hold, as `json_encode` takes it: bytes are base64."""
    return _encoded(pl.col(name), dtype)


def _encoded(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.List):
        inner: Any = dtype.inner
        return cell.list.eval(_encoded(pl.element(), inner)) if _leaf(inner) == pl.Binary else cell
    return cell.bin.encode("base64") if dtype == pl.Binary else cell


def _leaf(dtype: Any) -> Any:
    return _leaf(dtype.inner) if isinstance(dtype, pl.List) else dtype


def _expected(dtype: Any) -> str:
    if isinstance(dtype, pl.List):
        return f"a list, each of it {_expected(dtype.inner)}"
    if isinstance(dtype, pl.Datetime):
        return f"a moment {'with its' if dtype.time_zone else 'without a'} time zone, before the year 10000"
    if dtype.is_integer():
        return f"a whole number that {dtype} holds"
    if dtype.is_numeric():
        return f"a number that {dtype} holds exactly"
    return _WORDS.get(dtype, str(dtype))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _plain(dtype: pl.DataType) -> pl.DataType:
    return pl.String() if isinstance(dtype, pl.Categorical | pl.Enum) else dtype


def _held(column: pl.Series, wanted: Any) -> tuple[pl.Series, pl.Series | None]:
    """Return the column in a type, null where it has no place there, and where that is; None for nowhere."""
    came = column.dtype
    if came == wanted:
        if not came.is_temporal():
            return column, None
        kept = column.to_frame().select(bounded(pl.col(column.name), came).alias(column.name)).to_series()
        return kept, kept.is_null() & column.is_not_null()
    if came == pl.Object:
        return _held_objects(column, wanted)
    if _plain(came) == pl.String():
        return _held_text(column.cast(pl.String), wanted)
    if not _is_alike(came, wanted):
        return pl.Series(column.name, [None] * len(column), dtype=wanted), column.is_not_null()
    if came == pl.Binary:
        return _held_bytes(column)
    try:
        cast = column.cast(wanted, strict=False)
        is_same = cast.cast(came, strict=False).eq_missing(column)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [None] * len(column), dtype=wanted), column.is_not_null()
    value = bounded(pl.lit(cast), wanted) if wanted.is_temporal() else pl.lit(cast)
    held = pl.select(pl.when(is_same).then(value).alias(column.name)).to_series()
    return held, held.is_null() & column.is_not_null()


def _held_text(column: pl.Series, wanted: Any) -> tuple[pl.Series, pl.Series | None]:
    if wanted == pl.String:
        return column, None
    read = column.to_frame().select(parsed(column.name, wanted).alias(column.name)).to_series()
    return read, read.is_null() & column.is_not_null()


def _held_bytes(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return bytes as the text that they are in UTF-8; polars refuses the whole column for one that is not."""
    texts = [None if cell is None else cell.decode("utf-8", errors="replace") for cell in column]
    is_lost = [text is not None and text.encode() != cell for cell, text in zip(column, texts, strict=True)]
    kept = [None if lost else text for text, lost in zip(texts, is_lost, strict=True)]
    return pl.Series(column.name, kept, dtype=pl.String), pl.Series(is_lost, dtype=pl.Boolean)


def _held_objects(column: pl.Series, wanted: Any) -> tuple[pl.Series, pl.Series]:
    """Return Python objects in a type: those of each class as a column of their own would be."""
    values = column.to_list()
    held: list[Any] = [None] * len(values)
    is_lost = [value is not None for value in values]
    waiting = [[at for at, value in enumerate(values) if _class_of(value) is kind] for kind in _CLASSES]
    while waiting:
        places = waiting.pop()
        try:
            part = pl.Series([values[at] for at in places])
        # One integer that no type holds fails its whole class.
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, RuntimeError):
            waiting += [[at] for at in places] if len(places) > 1 else []
            continue
        cast, lost = _held(part, wanted)
        for at, place in enumerate(places):
            held[place], is_lost[place] = cast[at], lost is not None and lost[at]
    return pl.Series(column.name, held, dtype=wanted), pl.Series(is_lost, dtype=pl.Boolean)


def _class_of(value: Any) -> type | None:
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return next((kind for kind in _CLASSES if isinstance(value, kind)), None)


def _is_alike(came: Any, wanted: Any) -> bool:
    """Tell whether values of two types mean the same kind of thing, so that a cast makes nothing up."""
    if came in (wanted, pl.Null):
        return True
    if isinstance(wanted, pl.List):
        return isinstance(came, pl.List | pl.Array) and _is_alike(came.inner, wanted.inner)
    if isinstance(wanted, pl.Datetime):
        # Of a moment without a zone nobody knows when it was, and a date has no time of day.
        return isinstance(came, pl.Datetime) and (came.time_zone is None) == (wanted.time_zone is None)
    if wanted == pl.Date:
        return isinstance(came, pl.Datetime) and came.time_zone is None
    if wanted == pl.String:
        # A float has more than one spelling: the id 7 of a column with a null came as 7.0.
        return came.is_integer() or came == pl.Binary
    if wanted == pl.Binary:
        return False
    numbers = [dtype == pl.Boolean or dtype.is_numeric() for dtype in (came, wanted)]
    return all(numbers) or (isinstance(wanted, pl.Duration) and isinstance(came, pl.Duration))


def _texts(cells: pl.Series) -> Iterable[str]:
    """Return cells as text; a time that neither Python nor a calendar of polars has as a count since 1970."""
    dtype = cells.dtype
    if dtype == pl.Binary:
        return [base64.b64encode(cell).decode() for cell in cells]
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        unit = dtype.time_unit if isinstance(dtype, pl.Datetime) else "days"
        shown = pl.select(bounded(pl.lit(cells), dtype).cast(pl.String)).to_series()
        return shown.fill_null(cells.to_physical().cast(pl.String) + f" {unit} since 1970")
    if isinstance(dtype, pl.Duration):
        return cells.dt.to_string("iso")
    if dtype.is_nested() or dtype == pl.Object:
        plain = cells if dtype == pl.Object else cells.to_physical()
        return [json.dumps(cell, default=str, ensure_ascii=False) for cell in plain.to_list()]
    return cells.cast(pl.String)
