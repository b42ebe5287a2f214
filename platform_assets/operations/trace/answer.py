"""Read an answer's inputs, its outcome, and the faults of the keys that its features look back on."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any

import polars as pl
from msgspec.structs import replace

from platform_assets.data import answer_rows
from platform_assets.monitoring import skew
from platform_assets.operations.trace.lineage import FaultyKey, Inputs, OnRecord, Outcome
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore

RECORDS_READ = 20
OF_A_RECORD = ("kind", "source", "check", "column", "came", "expected", "why", "by", "at_utc")


def inputs(product: ProductStore, key: str, answer: pl.DataFrame) -> Inputs | None:
    """Return the logged inputs of an answer, and which differ from our features as they are now.

    Args:
        key: the answer's.
        answer: its row, with a column for each field that its table has.

    Returns:
        None where no inputs were logged.
    """
    types = {item.name: answer_rows.FIELD_TYPES[item.dtype] for item in product.spec.fields}
    row = answer_rows.align(answer, {"entity": pl.String(), "asked_at": answer_rows.MOMENT, **types})
    logged = row.select(*types).row(0, named=True)
    if all(value is None for value in logged.values()):
        return None
    result = Inputs(logged={name: plain(value) for name, value in logged.items()}, is_compared=False, differing=[])
    record = product.tables.records("features", [key]).get(key)
    if record is not None and set(row.columns) <= set(record.columns):
        ours = product.tables.read("features", [key], columns=row.columns)
        ours = ours.filter(pl.col("entity") == row["entity"][0], pl.col("asked_at") == row["asked_at"][0])
        if ours.height:
            return replace(result, is_compared=True, differing=skew.compare(row, ours, product.spec.fields).fields)
    return result


def outcome(tables: TableStore, key: str, entity: str) -> Outcome | None:
    """Return the label of an entity and when it became known; None before that."""
    record = tables.records("outcomes", [key]).get(key)
    columns = ["entity", "label", "known_at"]
    if record is None or not set(columns) <= set(record.columns):
        return None
    rows = tables.read("outcomes", [key], columns=columns).filter(pl.col("entity") == entity)
    labels = [{name: plain(row[name]) for name in ("label", "known_at")} for row in rows.iter_rows(named=True)]
    return Outcome(**labels[0]) if labels else None


def faults(product: ProductStore, key: str) -> list[FaultyKey]:
    """Return the faults of a key and of those that its features look back on, in order, each with its settlement."""
    keys = product.spec.grain.with_lookback((key,), product.spec.lookback)
    holds = product.history.holds(keys)
    return [
        FaultyKey(
            key=name,
            kind=holds[name].kind,
            is_held=holds[name].is_held,
            is_out=holds[name].is_excluded,
            records=[
                OnRecord(number=number, **record.present(OF_A_RECORD))
                for number, record in reversed(product.history.newest_faults(name, RECORDS_READ))
            ],
        )
        for name in keys
        if name in holds
    ]


def plain(value: Any) -> Any:
    """Return a value as JSON has it; an image as its digest."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes, sha256 {sha256(value).hexdigest()}"
    return value.isoformat() if isinstance(value, datetime) else value
