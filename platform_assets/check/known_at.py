"""Show a source's rows as they stood at a moment, and find columns of which it does not say when they were known."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from platform_assets.base.wording import counted
from platform_assets.product.sources import Source

FEW = 0.01
"""Share of a column's values that may lie after `known_at`: clocks of two systems differ."""
_OWN = ("key", "source_offset")


def as_known(source: Source, rows: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """Return the rows that were known at a moment, null in the columns that the source declares as known later.

    A column whose moment is null was never known. The column of the moments is blanked too.
    """
    if source.known_at is not None:
        rows = rows.filter(pl.col(source.known_at) <= moment)
    given = {column: at for column, at in (source.known_at_of or {}).items() if at is not None}
    known_at = {at: pl.col(at) for at in given.values() if isinstance(at, str)}
    for column, at in given.items():
        known_at[column] = pl.col(at) if isinstance(at, str) else pl.col(str(source.known_at)) + at
    return rows.with_columns(
        pl.when(at <= moment).then(pl.col(column)).alias(column) for column, at in known_at.items()
    )


def undeclared(source: Source, rows: pl.DataFrame, asked_at: datetime) -> str:
    """Describe the columns with moments after their row was known that the source does not declare; empty for none.

    Such a column is either a plan, or it came later, and others may have come with it. Moments are compared in whole
    seconds, as features are.

    Args:
        source: of `features`.
        rows: its validated rows.
        asked_at: of the earliest built row; a slow table without `known_at` is known from then.
    """
    declared = {source.known_at, source.partition_by, *(source.known_at_of or {})}
    declared.update(at for at in (source.known_at_of or {}).values() if isinstance(at, str))
    names = [name for name, kind in rows.schema.items() if kind in (pl.Date, pl.Datetime) and name not in declared]
    known_at = pl.lit(asked_at) if source.known_at is None else pl.col(source.known_at)
    known_s = known_at.dt.epoch("s")
    late: dict[str, int] = {}
    for name in names:
        # Dates, and moments without a zone, count as UTC.
        moment = pl.col(name).cast(pl.Datetime("us")) if rows.schema[name] == pl.Date else pl.col(name)
        count = rows.filter(moment.dt.epoch("s") > known_s).height
        if count > FEW * (rows.height - rows[name].null_count()):
            late[name] = count
    if not late:
        return ""
    (column, count), *_ = late.items()
    others = [name for name in rows.columns if name not in (*declared, *late, *_OWN)]
    since = "the first `asked_at`" if source.known_at is None else f"its row's {source.known_at}"
    more = f" (so do {', '.join([*late][1:])})" if len(late) > 1 else ""
    belonging = f", likewise each of {', '.join(others)} that came with it" if others else ""
    history = f"known_at={column!r} where a row holds from then; " if source.known_at is None else ""
    return (
        f"column {column!r} of the source {source.name} lies after {since} in {count:,} of "
        f"{counted(rows.height, 'row')}{more}, and nothing declares when it was known, so it is unknown whether "
        f"features() sees the future. Declare in the source: {history}known_at_of={{{column!r}: {column!r}}} where it "
        f"was known only then{belonging}; known_at_of={{{column!r}: None}} where it was known with its row, as a "
        "plan is"
    )


def alone(source: Source) -> str:
    """Describe the moments that a source declares for themselves alone, which is easily half of a declaration."""
    declared = source.known_at_of or {}
    names = [name for name, at in declared.items() if name == at and [*declared.values()].count(at) == 1]
    return f"no other column of the source {source.name} is declared as known at {' or '.join(names)}" if names else ""
