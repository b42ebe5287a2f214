"""Define the column types of tables and the digest of their canonical rows.

The digest depends only on names, types, nulls, values and the order of rows: not on file bytes, chunks, the order of
columns, or the version of polars. `tests/store/test_content.py` has frozen digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import polars as pl

from platform_assets.store.problems import TableProblem

DIGEST_FORMAT = b"driftline content 1\n"

_KINDS: dict[str, tuple[pl.DataType, str]] = {
    "Boolean": (pl.Boolean(), "boolean"),
    "Int8": (pl.Int8(), "byte"),
    "Int16": (pl.Int16(), "short"),
    "Int32": (pl.Int32(), "integer"),
    "Int64": (pl.Int64(), "long"),
    "Float32": (pl.Float32(), "float"),
    "Float64": (pl.Float64(), "double"),
    "String": (pl.String(), "string"),
    "Binary": (pl.Binary(), "binary"),
    "Date": (pl.Date(), "date"),
    "Datetime": (pl.Datetime("us"), "timestamp_ntz"),
    "Datetime UTC": (pl.Datetime("us", "UTC"), "timestamp"),
}
"""The type of polars, and the name of Delta, by our name."""
_OF_TIME = {"Date", "Datetime", "Datetime UTC"}
_NAMES = {dtype: name for name, (dtype, _) in _KINDS.items()}


def type_name(dtype: pl.DataType, column: str) -> str:
    """Return our name of a type, such as `Datetime UTC` or `List Float32`.

    Raises:
        TableProblem: Delta would not return this type as it was stored.
    """
    if isinstance(dtype, pl.List):
        return f"List {type_name(dtype.inner, column)}"  # type: ignore[arg-type]  # an instance, since dtype is one
    try:
        return _NAMES[dtype]
    except KeyError:
        raise TableProblem(
            f"column {column!r} has type {dtype}, which a table cannot store; cast it to one of {', '.join(_KINDS)} "
            "(times in microseconds) or a List of one."
        ) from None


def type_of(name: str) -> pl.DataType:
    """Return the polars type of one of our names."""
    return pl.List(type_of(name[5:])) if name.startswith("List ") else _KINDS[name][0]


def delta_type(name: str) -> Any:
    """Return one of our types as Delta's schema JSON spells it."""
    if name.startswith("List "):
        return {"type": "array", "elementType": delta_type(name[5:]), "containsNull": True}
    return _KINDS[name][1]


class DeltaField(TypedDict):
    """A column in Delta's schema JSON; a list's type is an object."""

    name: str
    type: object


def types_of_delta(fields: Sequence[DeltaField]) -> dict[str, pl.DataType]:
    """Return polars types by column from Delta's schema JSON, without columns whose types are not ours."""
    type_names = {field["name"]: _of_delta(field["type"]) for field in fields}
    return {name: type_of(kind) for name, kind in type_names.items() if kind is not None}


def _of_delta(spelled: Any) -> str | None:
    if isinstance(spelled, Mapping):
        inner = _of_delta(spelled.get("elementType"))
        return None if inner is None else f"List {inner}"
    return next((name for name, (_, delta) in _KINDS.items() if delta == spelled), None)


def columns_of(frame: pl.DataFrame) -> dict[str, str]:
    """Return type names by column, in the frame's order."""
    return {name: type_name(dtype, name) for name, dtype in frame.schema.items()}


def content_digest(frame: pl.DataFrame) -> str:
    """Return the sha256 of a frame's canonical rows, in hex.

    Two frames have the same digest exactly when they have the same columns (in any order) of the same types and the
    same rows in the same order. Null, 0, "" and NaN differ; so do 0.0 and -0.0; all NaNs are equal.

    Raises:
        TableProblem: a column has a type that a table cannot store.
    """
    return digest_of_groups(frame.height, [frame])


def digest_of_groups(rows: int, groups: Iterable[pl.DataFrame]) -> str:
    """Return the `content_digest` of a frame from groups of its columns, so that not all must be in memory.

    Args:
        rows: the frame's height.
        groups: all columns, each in one group, so that all names of a group sort before those of the next.
    """
    # Not polars' hash_rows(): versions 1.42, 2.0 and 2.1 give three results for the same frame.
    digest = hashlib.sha256(DIGEST_FORMAT)
    digest.update(rows.to_bytes(8, "little"))
    for group in groups:
        for part in _parts_of_group(group):
            # Lengths keep neighbours apart: "ab" and "c" are not "a" and "bc".
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _parts_of_group(frame: pl.DataFrame) -> Iterator[bytes]:
    """Yield per column, in the order of names: name, type, null mask and values."""
    kinds = columns_of(frame)
    columns = {column.name: column for column in frame.get_columns()}
    holed = {name for name, column in columns.items() if column.null_count()}
    columns |= {
        column.name: column
        for column in frame.select(
            _filled(name, kind) for name, kind in kinds.items() if name in holed or kind in _OF_TIME
        ).get_columns()
    }
    nulls = {column.name: column for column in frame.select(pl.col(name).is_null() for name in holed).get_columns()}
    for name in sorted(kinds):
        yield name.encode()
        yield kinds[name].encode()
        yield from _parts(columns[name], kinds[name], nulls.get(name))


def _filled(name: str, kind: str) -> pl.Expr:
    """Return a column as numbers or text, with nulls as zero, `False` or an empty value; lists are unchanged."""
    column = pl.col(name)
    if kind.startswith("List "):
        return column
    if kind == "String":
        return column.fill_null("")
    if kind == "Binary":
        return column.fill_null(b"")
    return column.fill_null(False) if kind == "Boolean" else column.to_physical().fill_null(0)


def _parts(column: pl.Series, kind: str, mask: pl.Series | None) -> Iterator[bytes]:
    """Yield the null mask (empty without nulls), then the values."""
    import numpy as np

    yield b"" if mask is None else np.packbits(mask.to_numpy()).tobytes()
    if kind.startswith("List "):
        lengths = column.list.len().fill_null(0)
        yield lengths.cast(pl.Int64).to_numpy().astype("<i8").tobytes()
        # explode() gives a null for a list that is null, which would count as a value of its own.
        yield content_digest(column.filter(lengths > 0).explode().cast(type_of(kind[5:])).to_frame("")).encode()
    elif kind == "String":
        # The same bytes as by a walk over the cells, 5.5 times cheaper; lengths keep the cells apart.
        yield column.str.len_bytes().to_numpy().astype("<i8").tobytes()
        yield column.str.join("").item().encode()
    elif kind == "Binary":
        pieces = column.to_list()
        yield np.array([len(piece) for piece in pieces], dtype="<i8").tobytes()
        yield b"".join(pieces)
    else:
        values = column.to_numpy()
        if values.dtype.kind == "f":
            # NaNs have many bit patterns, and which one an operation gives depends on the processor.
            values = np.where(np.isnan(values), np.array(np.nan, dtype=values.dtype), values)
        yield values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
