"""Compare the inputs that were served with the platform's own for the same entity and moment.

Belongs here: matching rows and comparing values as the model sees them. Does not belong here: which answers count
(`answers`), or which keys can be compared at all (`stages.performance`).

A caller builds its inputs elsewhere: in another language, from another copy of the data, at another moment. Whatever
differs there is seen here first: a unit, a time zone, an observation an hour old.
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
"""How many fields are named; those with most differing rows first."""
_OURS = "_ours"
_IS_KNOWN, _IS_LOGGED = "_is_known", "_is_logged"
"""Names that no field can have: these begin with a letter."""


def classify(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> pl.DataFrame:
    """Return three booleans per served row, in its order.

    Args:
        served: with `entity`, `asked_at` and a column per field.
        ours: the same columns, one row per entity and moment.
        fields: of the product.

    Returns:
        `is_logged`: some input was logged; `is_known`: its entity and moment are among ours; `is_equal`: its features
        are ours too.

    Raises:
        ValueError: two rows of ours for one entity and moment, or a field that either side lacks.
    """
    rows, differs = _beside(served, ours, fields)
    is_equal = rows[_IS_KNOWN] & rows[_IS_LOGGED] & ~differs.select(pl.any_horizontal(pl.all())).to_series()
    return pl.DataFrame({"is_logged": rows[_IS_LOGGED], "is_known": rows[_IS_KNOWN], "is_equal": is_equal})


def compare(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> Compared:
    """Compare served rows with our own, and count entities: however often one is asked about, it counts once.

    Equal means equal for the model: numbers and booleans as float32, categories as text, images by their grey levels,
    null equal to null. A served row for an entity and moment of which we have no row is not equal: whoever asks with a
    shifted clock asks about moments that we never built. An entity is equal when all of its rows are.

    Args:
        served: as `classify` takes it; rows without any input (not logged) are left out.
        ours, fields: as `classify` takes them.

    Raises:
        ValueError: as `classify`.
    """
    rows, differs = _beside(served, ours, fields)
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


def decided(found: Compared | None, limit: float) -> Skew:
    """Return what a decision keeps of a comparison.

    Args:
        found: from `compare`; None when nothing was compared.
        limit: the share of equal entities below which a key is skewed.
    """
    rows, share = (0, None) if found is None else (found.rows, found.share)
    return Skew(rows=rows, share=share, limit=limit, is_skewed=share is not None and share < limit)


def total(found: Iterable[Compared]) -> Compared:
    """Return the comparisons of several keys as one, added up."""
    each = list(found)
    rows, equal = sum(one.rows for one in each), sum(one.rows_equal for one in each)
    by_field: dict[str, Differing] = {}
    for entry in (entry for one in each for entry in one.fields):
        known = by_field.get(entry.field)
        by_field[entry.field] = entry if known is None else replace(known, rows=known.rows + entry.rows)
    ranked = sorted(by_field.values(), key=lambda entry: (-entry.rows, entry.field))
    return Compared(
        rows=rows,
        rows_equal=equal,
        rows_unknown=sum(one.rows_unknown for one in each),
        share=equal / rows if rows else None,
        fields=[replace(entry, share=entry.rows / rows) for entry in ranked[:MOST_FIELDS]],
    )


def _beside(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return served rows with ours next to them and what is known of each; and a boolean per field that differs."""
    names = [item.name for item in fields]
    for side, frame in (("served rows", served), ("our rows", ours)):
        if missing := [name for name in (*WHO, *names) if name not in frame.columns]:
            raise ValueError(f"the {side} lack {', '.join(missing)}; pass `entity`, `asked_at` and every field.")
    if ours.select(pl.struct(WHO).is_duplicated().any()).item():
        raise ValueError("our rows hold one entity and moment twice; mend `features` in the product's file.")
    known = ours.select(*WHO, pl.lit(True).alias(_IS_KNOWN), *(pl.col(name).alias(f"{name}{_OURS}") for name in names))
    rows = (
        served.select(*WHO, *names, (~pl.all_horizontal(pl.col(names).is_null())).alias(_IS_LOGGED))
        .join(known, on=list(WHO), how="left", maintain_order="left")
        .with_columns(pl.col(_IS_KNOWN).fill_null(value=False))
    )
    differs = rows.select(
        _as_seen(item, item.name).ne_missing(_as_seen(item, f"{item.name}{_OURS}")).alias(item.name) for item in fields
    )
    return rows, differs


def _as_seen(item: Field, name: str) -> pl.Expr:
    """Return a column as the model sees it (`compute.matrix`): NaN is null there, and text empty or null alike."""
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


def _differing(found: pl.DataFrame, name: str, *, rows: int, share: float) -> Differing:
    row = found.row(0, named=True)
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
    """Return a value for a record; of an image its digest, by which it can be found."""
    return f"{len(value)} bytes, sha256 {sha256(value).hexdigest()}" if isinstance(value, bytes) else value
