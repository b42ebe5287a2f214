"""Hold two builds of the same rows against each other, and show a cell that differs.

Belongs here: the comparison and its sentence. Does not belong here: what is built, and why it should be the same
(`trial`, `reach`).
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from platform_assets.checking import rows
from platform_assets.checking.told import Problem


def check_columns(one: pl.DataFrame, again: pl.DataFrame, words: str, mend: str) -> None:
    """Raise `Problem` unless both builds have the same columns and types.

    Args:
        one: the first build.
        again: the second one.
        words: begin the sentence.
        mend: ends it.
    """
    if again.schema != one.schema:
        changed = dict(again.schema.items() - one.schema.items()) or dict(one.schema.items() - again.schema.items())
        raise Problem(f"{words}: other columns or types come, such as {changed}. {mend}")


def check_cells(
    one: pl.DataFrame,
    other: pl.DataFrame,
    words: str,
    mend: str,
    differ: Callable[[pl.Series, pl.Series], pl.Series] = pl.Series.ne_missing,
) -> None:
    """Raise `Problem` unless both builds have the same rows, in order.

    Args:
        one: the first build.
        other: the second one, with the same columns.
        words: begin the sentence.
        mend: ends it.
        differ: tells for each row whether two columns say something else; exactly by default.
    """
    who = list(rows.ABOUT)
    if not one.select(who).equals(other.select(who)):
        raise Problem(f"{words}: other entities, or in another order. {mend}")
    for name in one.columns:
        if (differs := differ(one[name], other[name])).any():
            row = differs.arg_max() or 0
            raise Problem(
                f"{words}: {name!r} changes in {differs.sum():,} of {one.height:,} rows, "
                f"for {one['entity'][row]!r}: {_change(one[name][row], other[name][row])}. {mend}"
            )


def _change(before: object, after: object) -> str:
    """Return what became of a cell; of an image how much, for nobody reads its bytes."""
    if isinstance(before, bytes) and isinstance(after, bytes) and len(before) == len(after):
        count = sum(one != other for one, other in zip(before, after, strict=True))
        return f"{len(before):,} bytes, {count:,} of them differ"
    told = (f"{len(each):,} bytes" if isinstance(each, bytes) else repr(each) for each in (before, after))
    return f"from {' to '.join(told)}"
