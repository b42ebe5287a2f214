"""Hold the rows that a product's functions return against what its file declares.

Belongs here: columns, entities and keys of rows, each refusal a sentence. Does not belong here: calling the functions
(`trial`), values of fields (`compute.declared`), or a caller's request (`serving.contract`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import declared
from platform_assets.keys import DailyGrain, Grain, HourlyGrain
from platform_assets.storage import content
from platform_assets.storage.problems import TableProblem

if TYPE_CHECKING:
    from platform_assets.specs.base import Field

ABOUT = ("key", "entity", "service_time", "asked_at")
MOMENT = pl.Datetime("us", "UTC")


def check_rows(
    rows: pl.DataFrame, fields: Sequence[Field], whose: str, mend: str, *, incomplete: Collection[str] = ()
) -> None:
    """Raise `ValueError` unless rows have the columns, types and values that the fields declare.

    Args:
        rows: of `features`.
        fields: of the product, in order.
        whose: begins the sentence: `features() of demand`.
        mend: ends it.
        incomplete: keys where any field may be null, see `declared.incomplete`.
    """
    expected = [*ABOUT, *(item.name for item in fields)]
    if rows.columns != expected:
        missing = _listed(expected, rows.columns)
        more = _listed(rows.columns, expected)
        order = "" if missing or more else " They are in another order."
        raise ValueError(
            f"{whose} returns {len(rows.columns)} columns; expected {', '.join(ABOUT)} and the {len(fields)} fields. "
            f"Missing: {missing or 'none'}; not declared: {more or 'none'}.{order} {mend}"
        )
    if rows.is_empty():
        raise ValueError(f"{whose} returns no rows; expected one for each entity of the window's keys. {mend}")
    check_entities(rows, whose, mend)
    for name in ("service_time", "asked_at"):
        came = rows.schema[name]
        if came != MOMENT or rows[name].null_count():
            raise ValueError(
                f"{whose}: {name!r} is {described(rows[name])}; expected moments in UTC, microseconds "
                f"({MOMENT!r}), none of them null. {mend}"
            )
    if late := rows.filter(pl.col("asked_at") > pl.col("service_time")).height:
        raise ValueError(f"{whose}: {late:,} of {rows.height:,} rows are asked after their service_time. {mend}")
    declared.check_fields(rows, fields, whose, mend, incomplete=incomplete)
    for name, dtype in rows.drop("key").schema.items():
        check_type(name, dtype, whose, mend)


def check_entities(rows: pl.DataFrame, whose: str, mend: str) -> None:
    """Raise `ValueError` unless each row names its key and entity in text, and no two of a key the same entity."""
    for name in ("key", "entity"):
        if rows.schema[name] not in declared.TEXT or rows[name].null_count():
            raise ValueError(f"{whose}: {name!r} is {described(rows[name])}; expected text in every row. {mend}")
    if (twice := rows.filter(rows.select("key", "entity").is_duplicated())).height:
        raise ValueError(
            f"{whose}: {twice.height:,} rows share key and entity with another row, such as {twice['entity'][0]!r} of "
            f"{twice['key'][0]}; expected one row an entity. {mend}"
        )


def described(column: pl.Series) -> str:
    """Return what a column is: `String`, or `String with 3 nulls`."""
    return f"{column.dtype}" + (f" with {column.null_count():,} nulls" if column.null_count() else "")


def check_type(name: str, dtype: pl.DataType, whose: str, mend: str) -> None:
    """Raise `ValueError` for a column of a type that no table holds, such as the `UInt32` of `pl.len()`."""
    try:
        content.type_name(dtype, name)
    except TableProblem as problem:
        raise ValueError(f"{whose}: {problem} {mend}") from None


def check_keys(rows: pl.DataFrame, grain: Grain, keys: Sequence[str], whose: str, mend: str) -> None:
    """Raise `ValueError` unless the rows are of these keys alone, and a period's key is that of the service time."""
    if strangers := sorted(set(rows["key"]) - set(keys)):
        raise ValueError(f"{whose} returns rows of {strangers[0]}; it was asked for {' and '.join(keys)} alone. {mend}")
    if isinstance(grain, DailyGrain | HourlyGrain):
        for key, moment in rows.select("key", "service_time").unique(maintain_order=True).iter_rows():
            if (own := grain.key_of(moment)) != key:
                raise ValueError(
                    f"{whose} puts a row of service_time {moment.isoformat()} under {key}; it belongs to {own}. {mend}"
                )


def _listed(these: Sequence[str], those: Sequence[str]) -> str:
    names = [name for name in these if name not in those]
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
