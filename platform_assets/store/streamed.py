"""Replace one key by rows that do not fit into memory, unless another process has replaced it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from platform_assets.base import naming
from platform_assets.store import content, delta
from platform_assets.store.partition_records import RECORDS, PartitionRecord, Records, records_text
from platform_assets.store.reading import KEY, ROW

if TYPE_CHECKING:
    from platform_assets.store.tables import TableStore


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Rows of one key.

    Attributes:
        rows: their number.
        content_digest: as `content.content_digest` of all rows.
        batches: yields the rows in order, a new iterator per call; at least one frame, even without rows.
    """

    rows: int
    # Made from groups of columns (`content.digest_of_groups`): it runs column by column, and these batches are rows.
    content_digest: str
    batches: Callable[[], Iterator[pl.DataFrame]]


class Rewrite:
    """One replacement of one key: create it, read what the key holds, then call `replace`."""

    def __init__(self, tables: TableStore, stage: str, key: str, empty: pl.DataFrame) -> None:
        """Note the table's newest version, that `replace` starts from.

        Args:
            empty: without rows, with the columns that the key will have, without `key`.
        """
        self._tables, self._stage, self._key = tables, stage, key
        self._columns = content.columns_of(empty)
        self.location = naming.table_location(tables.root, tables.product, stage)
        first = empty.select(pl.lit(key).alias(KEY), pl.all())
        self._table = delta.open_or_create(self.location, first, partition_by=[KEY])

    def replace(self, stream: Stream, *, code: str, notes: Mapping[str, Any]) -> PartitionRecord | None:
        """Replace the key, and return its record; None, and nothing changed, if another process was quicker.

        Raises:
            TableProblem: storage failed, or the type of a column changed.
        """
        from arro3.core import RecordBatchReader, Table

        record = PartitionRecord(
            stage=self._stage,
            key=self._key,
            sequence=0,
            rows=stream.rows,
            content_digest=stream.content_digest,
            inputs={},
            code_digest=code,
            notes=dict(notes),
            columns=self._columns,
        )
        metadata, frames = {RECORDS: records_text([record])}, self._numbered(stream)
        # One Arrow stream, which converts the frames one by one.
        first = Table.from_arrow(next(frames))
        later = (batch for frame in frames for batch in Table.from_arrow(frame).to_batches())
        version = delta.try_commit(
            self.location,
            self._table,
            RecordBatchReader.from_batches(first.schema, chain(first.to_batches(), later)),
            metadata,
            rows=stream.rows,
            mode="overwrite",
            # Of two replacements that begin at one version the second fails by this; two appends would both stay.
            predicate=f"{KEY} IN ('{self._key}')",
            schema_mode="merge",
        )
        if version is None:
            return None
        files = delta.files_by_key(self.location, version)
        record = replace(record, sequence=version, files=tuple(files.get(self._key, ())))
        Records(self._tables.root, self._tables.product, self._stage).append([record])
        return record

    def _numbered(self, stream: Stream) -> Iterator[pl.DataFrame]:
        """Yield the rows as they are stored, see `tables`: row numbers unless they are few."""
        start = 0
        for frame in stream.batches():
            rows = frame.select(list(self._columns))
            number = [pl.int_range(start, start + pl.len(), dtype=pl.Int64).alias(ROW)]
            yield rows.select(pl.lit(self._key).alias(KEY), *(number if stream.rows > delta.FEW_ROWS else []), pl.all())
            start += frame.height
