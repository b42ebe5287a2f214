"""Read a stage's inputs: records that must exist, and rows with exactly the expected columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import ingest
from platform_assets.storage.problems import MissingPartitions

if TYPE_CHECKING:
    from platform_assets.storage.tables import PartitionRecord, TableStore


def require(tables: TableStore, stage: str, keys: Iterable[str]) -> dict[str, PartitionRecord]:
    """Return the newest record of each key. A missing one is an error: windows must be complete.

    Raises:
        MissingPartitions: some keys have no record; names them.
    """
    keys = tuple(keys)
    records = tables.records(stage, keys)
    if len(records) < len(keys):
        raise MissingPartitions(tables.product, stage, set(keys) - set(records))
    return records


def read(
    tables: TableStore, stage: str, records: Mapping[str, PartitionRecord], columns: Mapping[str, pl.DataType]
) -> dict[str, pl.DataFrame]:
    """Read each record's rows with exactly these columns, even if an older product file wrote others."""
    by_columns: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for key, record in records.items():
        by_columns.setdefault(tuple(record.columns.items()), {})[key] = record.content_digest
    frames: dict[str, pl.DataFrame] = {}
    for digests in by_columns.values():
        rows = tables.read_exact(stage, digests)
        parts = {str(key): part for (key,), part in rows.partition_by("key", as_dict=True).items()}
        for key in digests:
            frames[key] = ingest.align(parts.get(key, rows.clear()), columns)
    return frames
