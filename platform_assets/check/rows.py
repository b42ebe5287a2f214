"""Compare the rows that a product's functions return with what its file declares: columns, entities and keys."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.base.keys import DailyGrain, Grain, HourlyGrain
from platform_assets.base.wording import counted, span
from platform_assets.data import declared
from platform_assets.store import content
from platform_assets.store.problems import TableProblem

if TYPE_CHECKING:
    from platform_assets.product.spec import Field

ABOUT = ("key", "entity", "service_time", "asked_at")
MOMENT = pl.Datetime("us", "UTC")


def check_rows(
    rows: pl.DataFrame, fields: Sequence[Field], function: str, fix: str, *, incomplete: Collection[str] = ()
) -> None:
    """Raise `ValueError` unless rows have the columns, types and values that the fields declare.

    Args:
        rows: of `features`.
        function: beginning of the message: `features() of demand`.
        fix: end of the message.
        incomplete: keys where any field may be null, see `declared.incomplete`.
    """
    expected = [*ABOUT, *(item.name for item in fields)]
    if set(rows.columns) != set(expected):
        missing = _listed(expected, rows.columns)
        more = _listed(rows.columns, expected)
        raise ValueError(
            f"{function} returns {counted(len(rows.columns), 'column')}; expected {', '.join(ABOUT)} and the "
            f"{len(fields)} fields. Missing: {missing or 'none'}; not declared: {more or 'none'}. {fix}"
        )
    if rows.is_empty():
        raise ValueError(f"{function} returns no rows; expected one for each entity of the window's keys. {fix}")
    check_entities(rows, function, fix)
    for name in ("service_time", "asked_at"):
        if rows.schema[name] != MOMENT or rows[name].null_count():
            raise ValueError(
                f"{function}: {name!r} is {described(rows[name])}; expected moments in UTC, microseconds "
                f"({MOMENT!r}), none of them null. {fix}"
            )
    if late := rows.filter(pl.col("asked_at") > pl.col("service_time")).height:
        raise ValueError(f"{function}: {late:,} of {rows.height:,} rows are asked after their service_time. {fix}")
    declared.check_fields(rows, fields, function, fix, incomplete=incomplete)
    for name, dtype in rows.drop("key").schema.items():
        check_type(name, dtype, function, fix)


def check_entities(rows: pl.DataFrame, function: str, fix: str) -> None:
    """Raise `ValueError` unless each row names its key and entity as text, and no entity is there twice per key."""
    for name in ("key", "entity"):
        if rows.schema[name] not in declared.TEXT or rows[name].null_count():
            raise ValueError(f"{function}: {name!r} is {described(rows[name])}; expected text in every row. {fix}")
    if (repeated := rows.filter(rows.select("key", "entity").is_duplicated())).height:
        raise ValueError(
            f"{function}: {repeated.height:,} rows share key and entity with another row, such as "
            f"{repeated['entity'][0]!r} of {repeated['key'][0]}; expected one row per entity. {fix}"
        )


def described(column: pl.Series) -> str:
    """Return what a column is: `String`, or `String with 3 nulls`."""
    return f"{column.dtype}" + (f" with {counted(column.null_count(), 'null')}" if column.null_count() else "")


def check_type(name: str, dtype: pl.DataType, function: str, fix: str) -> None:
    """Raise `ValueError` for a column of a type that no table holds, such as the `UInt32` of `pl.len()`."""
    try:
        content.type_name(dtype, name)
    except TableProblem as problem:
        raise ValueError(f"{function}: {problem} {fix}") from None


def check_keys(rows: pl.DataFrame, grain: Grain, keys: Sequence[str], function: str, fix: str) -> None:
    """Raise `ValueError` unless the rows belong to these keys, and each service time to its row's key."""
    if others := sorted(set(rows["key"]) - set(keys)):
        raise ValueError(f"{function} returns rows of {others[0]}; expected only rows of {span(keys)}. {fix}")
    if isinstance(grain, DailyGrain | HourlyGrain):
        for key, moment in rows.select("key", "service_time").unique(maintain_order=True).iter_rows():
            if (expected := grain.key_of(moment)) != key:
                raise ValueError(
                    f"{function} puts a row of service_time {moment.isoformat()} under {key}; expected {expected}. "
                    f"{fix}"
                )


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    names = [name for name in names if name not in others]
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
