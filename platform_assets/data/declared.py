"""Check feature values against the product's declared fields (types, nulls, ranges, shapes), and set bad rows aside.

Rows are set aside when a service would refuse a request with their values. Which rows must exist is `check.rows`; a
caller's request is checked by `serving.answer.contract`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import polars as pl

if TYPE_CHECKING:
    from platform_assets.product.fields import Field
    from platform_assets.product.spec import Product

THE_FEATURES = "the features"
"""What a check blames when it blames no source. No source can have this name, because it contains a space."""
PUT_ASIDE, BY_REASON = "rows_put_aside", "put_aside_by_reason"
"""Notes on a key's features; absent if no row was set aside."""
MOST_REASONS = 10
_REASON = "_reason"
"""Cannot be a field's name: those begin with a letter."""

TEXT = (pl.String, pl.Categorical, pl.Enum)
TYPE_NAMES = {"float": "a number", "int": "an integer", "bool": "Boolean", "category": "text", "image": "Binary"}


class PutAside(TypedDict, total=False):
    """How many rows of a key's features were set aside, and the most frequent reasons."""

    rows_put_aside: int
    put_aside_by_reason: dict[str, int]


def check_fields(
    rows: pl.DataFrame, fields: Sequence[Field], origin: str, fix: str, *, incomplete: Collection[str] = ()
) -> None:
    """Raise `ValueError` unless each column has the type and the values that its field declares.

    Args:
        rows: of `features`: the column `key` and one column per field.
        origin: begins the sentence: `features() of demand`.
        fix: ends the sentence: where to fix it.
        incomplete: keys where any field may be null, because a source they read has no rows.
    """
    for item in fields:
        own, column, opening = rows.select("key", item.name), rows[item.name], f"{origin}: field {item.name!r}"
        dtype = column.dtype
        fits = {
            "float": dtype.is_float() or dtype.is_integer(),
            "int": dtype.is_integer(),
            "bool": dtype == pl.Boolean,
            "category": dtype in TEXT,
            "image": dtype == pl.Binary,
        }
        if not fits[item.dtype] and dtype != pl.Null:
            raise ValueError(
                f"{opening} is {dtype}; a field of dtype {item.dtype!r} is {TYPE_NAMES[item.dtype]}. {fix}"
            )
        if column.null_count() and not item.is_nullable:
            null = own.filter(column.is_null() & ~pl.col("key").is_in(list(incomplete)))
            if null.height:
                raise ValueError(
                    f"{opening} is null in {null.height:,} of {len(column):,} rows and not nullable, first in "
                    f"{null['key'][0]}. Set is_nullable=True, or fill it: {fix}"
                )
        non_null = own.drop_nulls(item.name)
        values = non_null[item.name]
        if dtype.is_float() and (strange := non_null.filter(~values.is_finite())).height:
            raise ValueError(
                f"{opening} is not a finite number in {strange.height:,} rows, first in {strange['key'][0]}; expected "
                f"null where there is none. {fix}"
            )
        if item.shape is not None and (wrong := (values.bin.size() != item.shape[0] * item.shape[1]).sum()):
            raise ValueError(
                f"{opening} has {wrong:,} images that are not {item.shape[0]} x {item.shape[1]} bytes. {fix}"
            )
        for bound, is_low in ((item.low, True), (item.high, False)):
            if bound is None or dtype == pl.Null:
                continue
            beyond = non_null.filter((values < bound) if is_low else (values > bound))
            if beyond.height:
                raise ValueError(
                    f"{opening} is {beyond[item.name][0]} in one of {beyond.height:,} rows outside its declared range, "
                    f"{item.low} to {item.high}, first in {beyond['key'][0]}. Change the range, or what is computed. "
                    f"{fix}"
                )


def split(rows: pl.DataFrame, fields: Sequence[Field]) -> tuple[pl.DataFrame, pl.Series]:
    """Return the rows whose values all satisfy their fields, and for each other row the reason.

    A row with several bad values has the reason of the first field. Types are not checked here.

    Args:
        rows: of `features`, with one column per field.
    """
    reasons = [reason for item in fields for reason in _reasons(item, rows.schema[item.name])]
    if not reasons:
        return rows, pl.Series(_REASON, [], dtype=pl.String)
    reason = rows.select(pl.coalesce(reasons).alias(_REASON)).to_series()
    return (
        (rows, reason.clear())
        if reason.null_count() == rows.height
        else (rows.filter(reason.is_null()), reason.drop_nulls())
    )


def notes(reasons: pl.Series) -> PutAside:
    """Return the notes about the rows `split` set aside; empty if there are none."""
    if reasons.is_empty():
        return {}
    # value_counts() gives equal counts in any order.
    counts = reasons.value_counts(sort=True).sort("count", _REASON, descending=[True, False]).head(MOST_REASONS)
    return {"rows_put_aside": reasons.len(), "put_aside_by_reason": dict(counts.iter_rows())}


def incomplete(spec: Product, tables: Mapping[str, pl.DataFrame], keys: tuple[str, ...]) -> set[str]:
    """Return the keys that look back on a key where some source has no rows (an empty delivery, or a nulled one).

    Args:
        tables: validated rows by source, as `features` reads them.
        keys: contiguous, in order.
    """
    window = spec.grain.with_lookback(keys, spec.lookback)
    keyed = [rows for name, rows in tables.items() if not spec.source(name).is_slow]
    absent = {key for rows in keyed for key in set(window) - set(rows["key"].unique())}
    return {key for key in keys if not absent.isdisjoint(spec.grain.with_lookback((key,), spec.lookback))}


def _reasons(item: Field, dtype: pl.DataType) -> list[pl.Expr]:
    """Return one expression per rule of a field: its reason where a row breaks it, otherwise null."""
    value, rules = pl.col(item.name), []
    if not item.is_nullable:
        rules.append((value.is_null(), f"{item.name} is null and not nullable"))
    if dtype.is_float():
        rules.append((value.is_nan() | value.is_infinite(), f"{item.name} is not a finite number"))
    if item.shape is not None and dtype == pl.Binary:
        height, width = item.shape
        rules.append((value.bin.size() != height * width, f"{item.name} is not an image of {height} x {width} bytes"))
    if dtype.is_numeric() and (item.low is not None or item.high is not None):
        low, high = -math.inf if item.low is None else item.low, math.inf if item.high is None else item.high
        is_beyond = (value < low) | (value > high)
        rules.append((is_beyond, f"{item.name} is outside its declared range, {item.low} to {item.high}"))
    return [pl.when(is_broken).then(pl.lit(reason)) for is_broken, reason in rules]
