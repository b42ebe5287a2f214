"""Read what a stage is made from: records that must be there, and rows with exactly the columns that are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import ingest
from platform_assets.storage.problems import MissingPartitions

if TYPE_CHECKING:
    from platform_assets.storage.tables import PartitionRecord, TableStore


def require(tables: TableStore, stage: str, keys: Iterable[str]) -> dict[str, PartitionRecord]:
    """Return the newest record of each key; a window is complete or it is an error.

    Raises:
        MissingPartitions: naming the keys without a record.
    """
    keys = tuple(keys)
    found = tables.records(stage, keys)
    if len(found) < len(keys):
        raise MissingPartitions(tables.product, stage, set(keys) - set(found))
    return found


def read(
    tables: TableStore, stage: str, records: Mapping[str, PartitionRecord], columns: Mapping[str, pl.DataType]
) -> dict[str, pl.DataFrame]:
    """Return the rows of each record with exactly these columns, also where an older product file wrote others."""
    by_columns: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for key, record in records.items():
        by_columns.setdefault(tuple(record.columns.items()), {})[key] = record.content_digest
    found: dict[str, pl.DataFrame] = {}
    for digests in by_columns.values():
        rows = tables.read_exact(stage, digests)
        parts = {str(key): part for (key,), part in rows.partition_by("key", as_dict=True).items()}
        for key in digests:
            found[key] = ingest.align(parts.get(key, rows.clear()), columns)
    return found
