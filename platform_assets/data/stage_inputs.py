"""Read a stage's inputs: records that must exist, and rows with exactly the expected columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.data import answer_rows
from platform_assets.data.rows import Rows
from platform_assets.store.problems import MissingPartitions

if TYPE_CHECKING:
    from platform_assets.store.partition_records import Versions
    from platform_assets.store.tables import PartitionRecord, TableStore

MOST_CELLS = 16_000_000
"""Rows times columns of a key that is held as a whole: 128 MB of numbers."""


@dataclass(frozen=True)
class Wide:
    """The rows of a large record, whose columns are read when they are asked for; see `data.rows.Columns`.

    Attributes:
        types: of all columns.
        kept: the columns that `about` returns.
        mask: which rows count; None: all.
    """

    tables: TableStore
    record: PartitionRecord
    types: Mapping[str, pl.DataType]
    kept: Sequence[str] = ()
    mask: pl.Series | None = None

    @property
    def height(self) -> int:
        """Number of rows that count."""
        return self.record.rows if self.mask is None else int(self.mask.sum())

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self.types)

    def select(self, names: Sequence[str]) -> pl.DataFrame:
        """Read some columns."""
        stored = [name for name in names if name in self.record.columns] or list(self.record.columns)[:1]
        rows = answer_rows.align(
            self.tables.read_record(self.record, stored), {name: self.types[name] for name in names}
        )
        return rows if self.mask is None else rows.filter(self.mask)

    def get_column(self, name: str) -> pl.Series:
        """Read one column."""
        return self.select([name]).to_series()

    def filter(self, mask: pl.Series) -> Wide:
        """Return some of the rows; of all rows only."""
        assert self.mask is None
        return replace(self, mask=mask)

    def about(self) -> pl.DataFrame:
        """Read the columns that describe answers."""
        return self.select(self.kept)


def is_large(record: PartitionRecord) -> bool:
    """Return whether a record's rows are too many to hold all their columns."""
    # Held whole, a key of a million answers of 89 fields was killed within 1 GB (row P16).
    return record.rows * len(record.columns) > MOST_CELLS


def rows(
    tables: TableStore, record: PartitionRecord, columns: Mapping[str, pl.DataType], kept: Sequence[str] = ()
) -> Rows:
    """Return a record's rows with exactly these columns, verified; of a large one what reads them."""
    if not is_large(record):
        return read(tables, record.stage, {record.key: record}, columns)[record.key]
    tables.verify(record)
    return Wide(tables, record, columns, kept)


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


def versions(records: Iterable[PartitionRecord]) -> Versions:
    """Return the versions of all stages that records come from, sorted per stage."""
    found: dict[str, set[str]] = {}
    for record in records:
        for stage, names in record.versions.items():
            found.setdefault(stage, set()).update(names)
    return {stage: tuple(sorted(names)) for stage, names in sorted(found.items())}


def read_together(tables: TableStore, records: Mapping[str, PartitionRecord]) -> pl.DataFrame:
    """Read the rows of records of one stage, with the columns of the last one.

    After a change of the product's schema older keys have others until they are made again: what they lack is null.
    """
    *_, newest = records.values()
    digests = {key: record.content_digest for key, record in records.items()}
    if all(record.columns == newest.columns for record in records.values()):
        return tables.read_exact(newest.stage, digests)
    types = tables.read_exact(newest.stage, {newest.key: newest.content_digest}).schema
    frames = read(tables, newest.stage, records, types)
    return pl.concat(frames[key] for key in records)


def read(
    tables: TableStore, stage: str, records: Mapping[str, PartitionRecord], columns: Mapping[str, pl.DataType]
) -> dict[str, pl.DataFrame]:
    """Read each record's rows with exactly these columns, even if an older product file wrote others."""
    return {key: answer_rows.align(frame, columns) for key, frame in read_each(tables, stage, records).items()}


def read_each(tables: TableStore, stage: str, records: Mapping[str, PartitionRecord]) -> dict[str, pl.DataFrame]:
    """Read each record's rows with the columns that it was written with; records of equal columns are read at once."""
    by_columns: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for key, record in records.items():
        by_columns.setdefault(tuple(record.columns.items()), {})[key] = record.content_digest
    frames: dict[str, pl.DataFrame] = {}
    for digests in by_columns.values():
        rows = tables.read_exact(stage, digests)
        parts = {str(key): part for (key,), part in rows.partition_by("key", as_dict=True).items()}
        frames |= {key: parts.get(key, rows.clear()) for key in digests}
    return {key: frames[key] for key in records}
