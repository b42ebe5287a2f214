"""Compare two builds of the same rows, and show a cell that differs."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from platform_assets.check import rows
from platform_assets.check.messages import Problem

ALL = pl.lit(True)


def check_same(
    one: pl.DataFrame,
    other: pl.DataFrame,
    start: str,
    fix: str,
    where: pl.Expr = ALL,
    differ: Callable[[pl.Series, pl.Series], pl.Series] = pl.Series.ne_missing,
) -> None:
    """Raise `Problem` unless two builds have the same columns, types and rows, in order.

    Args:
        one: the first build.
        other: the second one.
        start: beginning of the message.
        fix: end of the message.
        where: which rows are compared.
        differ: for each row, whether two columns differ; exactly by default.
    """
    if other.schema != one.schema:
        changed = dict(other.schema.items() - one.schema.items()) or dict(one.schema.items() - other.schema.items())
        raise Problem(f"{start}: other columns or types, such as {changed}. {fix}")
    one, other = one.filter(where), other.filter(where)
    names = list(rows.ABOUT)
    if not one.select(names).equals(other.select(names)):
        raise Problem(f"{start}: other entities, or in another order. {fix}")
    for name in one.columns:
        if (differs := differ(one[name], other[name])).any():
            row = differs.arg_max() or 0
            raise Problem(
                f"{start}: {name!r} changes in {differs.sum():,} of {one.height:,} rows, "
                f"for {one['entity'][row]!r}: {_change(one[name][row], other[name][row])}. {fix}"
            )


def _change(before: object, after: object) -> str:
    """Describe how a cell changed; for an image by the number of bytes, which nobody reads."""
    if isinstance(before, bytes) and isinstance(after, bytes) and len(before) == len(after):
        count = sum(one != other for one, other in zip(before, after, strict=True))
        return f"{len(before):,} bytes, {count:,} of them differ"
    texts = (f"{len(cell):,} bytes" if isinstance(cell, bytes) else repr(cell) for cell in (before, after))
    return f"from {' to '.join(texts)}"
