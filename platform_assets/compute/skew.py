"""Compare served inputs with the platform's own features for the same entity and moment.

Which answers count is `answers`; which keys can be compared at all is `stages.performance`.

Callers build their inputs elsewhere: in another language, from another copy of the data, at another moment. Any
difference shows here first: a unit, a time zone, an observation that is an hour old.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import polars as pl
from msgspec.structs import replace

from platform_assets.records.decisions import Skew
from platform_assets.records.performance import Compared, Differing, Value

if TYPE_CHECKING:
    from platform_assets.specs.base import Field

WHO = ("entity", "asked_at")
MOST_FIELDS = 20
"""How many fields are listed; those with the most differing rows first."""
_OURS = "_ours"
_IS_KNOWN, _IS_LOGGED = "_is_known", "_is_logged"
"""Cannot be field names: those begin with a letter."""


def classify(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> pl.DataFrame:
    """Return three booleans per served row, in order.

    Args:
        served: with `entity`, `asked_at` and one column per field.
        ours: the same columns, one row per entity and moment.

    Returns:
        `is_logged`: some input was logged; `is_known`: entity and moment are among ours; `is_equal`: the features are
        equal too.

    Raises:
        ValueError: ours has two rows for one entity and moment, or either side lacks a field.
    """
    rows, differs = _joined(served, ours, fields)
    is_equal = rows[_IS_KNOWN] & rows[_IS_LOGGED] & ~differs.select(pl.any_horizontal(pl.all())).to_series()
    return pl.DataFrame({"is_logged": rows[_IS_LOGGED], "is_known": rows[_IS_KNOWN], "is_equal": is_equal})


def compare(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> Compared:
    """Compare served rows with our own, counting each entity once, however often it was asked about.

    Equal means equal to the model: numbers and booleans as float32, categories as text, images by their grey levels,
    null equal to null. A served row whose entity and moment we have no row for is not equal: a caller with a shifted
    clock asks about moments we never built. An entity is equal when all of its rows are.

    Args:
        served: as `classify` takes it; rows without any input (not logged) are left out.
        ours, fields: as `classify` takes them.

    Raises:
        ValueError: as `classify`.
    """
    rows, differs = _joined(served, ours, fields)
    rows, differs = rows.filter(_IS_LOGGED), differs.filter(rows[_IS_LOGGED])
    is_known = rows[_IS_KNOWN]
    is_equal = is_known & ~differs.select(pl.any_horizontal(pl.all())).to_series()
    entities = rows["entity"].n_unique()
    equal = entities - rows.filter(~is_equal)["entity"].n_unique()
    return Compared(
        rows=entities,
        rows_equal=equal,
        rows_unknown=rows.filter(~is_known)["entity"].n_unique(),
        share=equal / entities if entities else None,
        fields=_by_field(rows.filter(is_known), differs.filter(is_known)),
    )


def judge(comparison: Compared | None, limit: float) -> Skew:
    """Return the part of a comparison that decisions record.

    Args:
        comparison: from `compare`; None if nothing was compared.
        limit: below this share of equal entities a key is skewed.
    """
    rows, share = (0, None) if comparison is None else (comparison.rows, comparison.share)
    return Skew(rows=rows, share=share, limit=limit, is_skewed=share is not None and share < limit)


def total(comparisons: Iterable[Compared]) -> Compared:
    """Add up the comparisons of several keys."""
    parts = list(comparisons)
    rows, equal = sum(part.rows for part in parts), sum(part.rows_equal for part in parts)
    by_field: dict[str, Differing] = {}
    for entry in (entry for part in parts for entry in part.fields):
        earlier = by_field.get(entry.field)
        by_field[entry.field] = entry if earlier is None else replace(earlier, rows=earlier.rows + entry.rows)
    ranked = sorted(by_field.values(), key=lambda entry: (-entry.rows, entry.field))
    return Compared(
        rows=rows,
        rows_equal=equal,
        rows_unknown=sum(part.rows_unknown for part in parts),
        share=equal / rows if rows else None,
        fields=[replace(entry, share=entry.rows / rows) for entry in ranked[:MOST_FIELDS]],
    )


def _joined(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return served rows joined with ours, and one boolean column per field that says whether it differs."""
    names = [item.name for item in fields]
    for side, frame in (("served rows", served), ("our rows", ours)):
        if missing := [name for name in (*WHO, *names) if name not in frame.columns]:
            raise ValueError(f"the {side} lack {', '.join(missing)}; pass `entity`, `asked_at` and every field.")
    if ours.select(pl.struct(WHO).is_duplicated().any()).item():
        raise ValueError("our rows hold one entity and moment twice; fix `features` in the product's file.")
    our_rows = ours.select(
        *WHO, pl.lit(True).alias(_IS_KNOWN), *(pl.col(name).alias(f"{name}{_OURS}") for name in names)
    )
    rows = (
        served.select(*WHO, *names, (~pl.all_horizontal(pl.col(names).is_null())).alias(_IS_LOGGED))
        .join(our_rows, on=list(WHO), how="left", maintain_order="left")
        .with_columns(pl.col(_IS_KNOWN).fill_null(value=False))
    )
    differs = rows.select(
        _as_seen(item, item.name).ne_missing(_as_seen(item, f"{item.name}{_OURS}")).alias(item.name) for item in fields
    )
    return rows, differs


def _as_seen(item: Field, name: str) -> pl.Expr:
    """Return a column as the model sees it (`compute.matrix`): NaN is null, and empty text equals null."""
    if item.dtype == "image":
        return pl.col(name)
    if item.dtype == "category":
        text = pl.col(name).cast(pl.String)
        return pl.when(text != "").then(text)
    return pl.col(name).cast(pl.Float32).fill_nan(None)


def _by_field(rows: pl.DataFrame, differs: pl.DataFrame) -> list[Differing]:
    counts = {name: rows.filter(differs[name])["entity"].n_unique() for name in differs.columns}
    ranked = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))
    entities = rows["entity"].n_unique()
    return [
        _differing(rows.filter(differs[name]), name, rows=counts[name], share=counts[name] / entities)
        for name in ranked[:MOST_FIELDS]
    ]


def _differing(rows_of_field: pl.DataFrame, name: str, *, rows: int, share: float) -> Differing:
    row = rows_of_field.row(0, named=True)
    return Differing(
        field=name,
        rows=rows,
        share=share,
        entity=row["entity"],
        asked_at=row["asked_at"].isoformat(),
        served=_plain(row[name]),
        ours=_plain(row[f"{name}{_OURS}"]),
    )


def _plain(value: bytes | Value) -> Value:
    """Return a value for a record; for an image its digest, by which it can be found."""
    return f"{len(value)} bytes, sha256 {sha256(value).hexdigest()}" if isinstance(value, bytes) else value
