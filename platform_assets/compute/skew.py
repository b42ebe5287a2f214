"""Compare the inputs that were served with the platform's own for the same entity and moment.

Belongs here: matching rows and comparing values as the model sees them. Does not belong here: which answers count
(`answers`), or which keys can be compared at all (`stages.performance`).

A caller builds its inputs elsewhere: in another language, from another copy of the data, at another moment. Whatever
differs there is seen here first: a unit, a time zone, an observation an hour old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import polars as pl

from platform_assets.records.decisions import Skew

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


def compare(served: pl.DataFrame, ours: pl.DataFrame, fields: Sequence[Field]) -> dict[str, Any]:
    """Compare served rows with our own, and count entities: however often one is asked about, it counts once.

    Equal means equal for the model: numbers and booleans as float32, categories as text, images by their grey levels,
    null equal to null. A served row for an entity and moment of which we have no row is not equal: whoever asks with a
    shifted clock asks about moments that we never built. An entity is equal when all of its rows are.

    Args:
        served: as `classify` takes it; rows without any input (not logged) are left out.
        ours, fields: as `classify` takes them.

    Returns:
        `rows`: distinct entities compared, `rows_equal`, `rows_unknown` (of which some moment is not ours), `share` of
        the equal ones (None without any), and `fields`: for each differing field `field`, `rows`, `share`, and one
        example: `entity`, `asked_at`, `served`, `ours`.

    Raises:
        ValueError: as `classify`.
    """
    rows, differs = _beside(served, ours, fields)
    rows, differs = rows.filter(_IS_LOGGED), differs.filter(rows[_IS_LOGGED])
    is_known = rows[_IS_KNOWN]
    is_equal = is_known & ~differs.select(pl.any_horizontal(pl.all())).to_series()
    entities = rows["entity"].n_unique()
    equal = entities - rows.filter(~is_equal)["entity"].n_unique()
    return {
        "rows": entities,
        "rows_equal": equal,
        "rows_unknown": rows.filter(~is_known)["entity"].n_unique(),
        "share": equal / entities if entities else None,
        "fields": _by_field(rows.filter(is_known), differs.filter(is_known)),
    }


def decided(found: Mapping[str, Any] | None, limit: float) -> Skew:
    """Return what a decision keeps of a comparison.

    Args:
        found: from `compare`; None when nothing was compared.
        limit: the share of equal entities below which a key is skewed.
    """
    rows, share = (0, None) if found is None else (found["rows"], found["share"])
    return Skew(rows=rows, share=share, limit=limit, is_skewed=share is not None and share < limit)


def total(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the comparisons of several keys as one: `rows`, `rows_equal`, `share`, `keys` and `fields` added up.

    Args:
        found: by key, from `compare`.
    """
    rows = sum(each["rows"] for each in found.values())
    equal = sum(each["rows_equal"] for each in found.values())
    by_field: dict[str, dict[str, Any]] = {}
    for each in found.values():
        for entry in each["fields"]:
            known = by_field.setdefault(entry["field"], {**entry, "rows": 0})
            known["rows"] += entry["rows"]
    ranked = sorted(by_field.values(), key=lambda entry: (-entry["rows"], entry["field"]))
    return {
        "keys": sum(each["rows"] > 0 for each in found.values()),
        "rows": rows,
        "rows_equal": equal,
        "rows_unknown": sum(each["rows_unknown"] for each in found.values()),
        "share": equal / rows if rows else None,
        "fields": [{**entry, "share": entry["rows"] / rows} for entry in ranked[:MOST_FIELDS]],
    }


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


def _by_field(rows: pl.DataFrame, differs: pl.DataFrame) -> list[dict[str, Any]]:
    counts = {name: rows.filter(differs[name])["entity"].n_unique() for name in differs.columns}
    ranked = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))
    entities = rows["entity"].n_unique()
    return [
        {
            "field": name,
            "rows": counts[name],
            "share": counts[name] / entities,
            **_example(rows.filter(differs[name]).row(0, named=True), name),
        }
        for name in ranked[:MOST_FIELDS]
    ]


def _example(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        "entity": row["entity"],
        "asked_at": row["asked_at"].isoformat(),
        "served": _plain(row[name]),
        "ours": _plain(row[f"{name}{_OURS}"]),
    }


def _plain(value: Any) -> Any:
    """Return a value for a record; of an image its digest, by which it can be found."""
    return f"{len(value)} bytes, sha256 {sha256(value).hexdigest()}" if isinstance(value, bytes) else value
