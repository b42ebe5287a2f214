"""Store a product's tables: one Delta table per stage, replaced key by key, read by partition record.

A key's rows are written in one commit, then its record in another. Rows without a record are invisible, so a process
killed in between leaves readers with the previous content. Records name the files of their rows: reading opens the
records' table and then those files, never the data table, and old content stays readable by digest. The commit of rows
also stores its records, so that lost records can be rebuilt (`rebuilding.py`).

A schema may gain and lose columns from one replacement to the next. A column may change its type only when every
key with rows is replaced in the same call; otherwise give it a new name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from platform_assets.base import naming
from platform_assets.store import content, delta, handles, objects
from platform_assets.store.content import content_digest
from platform_assets.store.partition_records import RECORDS, PartitionRecord, Records, Versions, records_text
from platform_assets.store.problems import DigestMismatch, MissingPartitions, TableProblem, plural
from platform_assets.store.reading import KEY, ROW, difference, read_recorded, verify_recorded

if TYPE_CHECKING:
    from datetime import datetime

    from deltalake import DeltaTable

__all__ = ["DigestMismatch", "MissingPartitions", "PartitionRecord", "TableProblem", "TableStore", "content_digest"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


class TableStore:
    """The tables and partition records of one product."""

    def __init__(self, root: str, product: str) -> None:
        """Name the store without opening anything.

        Args:
            root: a folder or an `s3://` URL (`Settings.root`); S3 reads its keys from the `AWS_*` variables.
        """
        self.root = root
        self.product = product

    def replace(
        self,
        stage: str,
        frames: Mapping[str, pl.DataFrame],
        *,
        inputs: Mapping[str, Mapping[str, str]],
        code: str,
        versions: Mapping[str, Versions] | None = None,
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, PartitionRecord]:
        """Replace whole keys: one commit of rows, then one of records.

        Args:
            stage: the stage's full name.
            frames: the rows per key, in order, all with one schema; a frame may be empty and may have a column
                `key` equal to its key.
            inputs: per key, the digests that its rows were made from, by name.
            code: the digest of the code that made them.
            versions: per key, of the stages that its rows come from.
            notes: per key, further content of its record.

        Returns:
            The new record of each key.

        Raises:
            TableProblem: a table cannot store the frames, their schemas differ, a type changed, or storage failed;
                every key is unchanged.
        """
        if not frames:
            return {}
        if unexplained := set(frames) - set(inputs):
            raise ValueError(f"inputs has nothing for {plural(unexplained)} of {stage}; pass a mapping for each frame.")
        bodies = {key: self._body(stage, key, frame) for key, frame in sorted(frames.items())}
        first = next(iter(bodies))
        columns = content.columns_of(bodies[first])
        for key, body in bodies.items():
            if (other := content.columns_of(body)) != columns:
                changes = difference(columns, other)
                raise TableProblem(f"{self.product}/{stage}: the frames of keys {first} and {key} differ: {changes}.")
        location = naming.table_location(self.root, self.product, stage)
        # A writer may spread several batches over several files, so their order needs numbers. One batch stays in
        # order, and a column of numbers would be a tenth of its file.
        is_numbered = sum(body.height for body in bodies.values()) > delta.FEW_ROWS
        number = [pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW)] if is_numbered else []
        rows = pl.concat(
            (body.select(pl.lit(key).alias(KEY), *number, pl.col(list(columns))) for key, body in bodies.items()),
            rechunk=True,  # one batch
        )
        records = {
            key: PartitionRecord(
                stage=stage,
                key=key,
                sequence=0,
                rows=body.height,
                content_digest=content_digest(body),
                inputs=dict(inputs[key]),
                code_digest=code,
                versions=dict((versions or {}).get(key, {})),
                notes=dict((notes or {}).get(key, {})),
                columns=columns,
            )
            for key, body in bodies.items()
        }
        metadata = {RECORDS: records_text(records.values())}
        # Partitioned by key: writers of different keys in one file would conflict.
        with delta.writing(location, rows.clear(), [KEY]) as table:
            version = delta.retry(
                location, lambda: self._commit(stage, location, rows, list(bodies), columns, table, metadata), table
            )
        files = delta.files_by_key(location, version)
        records = {
            key: replace(record, sequence=version, files=tuple(files.get(key, ()))) for key, record in records.items()
        }
        # Last: rows without a record are invisible, so a kill before this line leaves the previous content.
        self._records(stage).append(records.values())
        return records

    def record(
        self,
        stage: str,
        key: str,
        *,
        content_digest: str,
        inputs: Mapping[str, str],
        code: str,
        rows: int = 0,
        notes: Mapping[str, Any] | None = None,
    ) -> PartitionRecord:
        """Record the content of a key of a stage without a table, such as a checkpoint's sha256."""
        _check_key(stage, key)
        previous = self.records(stage, [key]).get(key)
        record = PartitionRecord(
            stage=stage,
            key=key,
            sequence=previous.sequence + 1 if previous else 1,
            rows=rows,
            content_digest=content_digest,
            inputs=dict(inputs),
            code_digest=code,
            notes=dict(notes or {}),
        )
        self._records(stage).append([record])
        return record

    def records(self, stage: str, keys: Iterable[str] | None = None) -> dict[str, PartitionRecord]:
        """Return the newest record of each key (every key by default), sorted; a key without one is absent.

        Costs opening one small Delta table, however many keys.
        """
        return self._records(stage).newest(keys)

    def versions(self, stage: str, key: str) -> list[PartitionRecord]:
        """Return the newest record of each content that a key has had, newest first."""
        return self._records(stage).versions(key)

    def types(self, stage: str) -> dict[str, pl.DataType]:
        """Return the current types of a stage's table, by column; empty without a table."""
        table = delta.open_table(naming.table_location(self.root, self.product, stage))
        return {} if table is None else content.types_of_delta(json.loads(table.schema().to_json())["fields"])

    def written_at(self, stage: str, sequence: int) -> datetime | None:
        """Return when a version of a stage's table was committed, by the store's clock; None without its log."""
        store = objects.open_store(naming.table_location(self.root, self.product, stage))
        return objects.modified(store, handles.log_file(sequence))

    def read(self, stage: str, keys: Iterable[str], *, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the recorded rows of keys, ordered by key and then as written, with a column `key`.

        Args:
            stage: the stage's full name.
            keys: each must have a record.
            columns: which columns besides `key`, in this order; all by default, and only then are digests verified.

        Raises:
            MissingPartitions: names the keys without a record.
            DigestMismatch: the content does not match a record.
            TableProblem: keys differ in a column that is read, or files are missing.
        """
        requested = sorted(set(keys))
        records = self.records(stage, requested)
        if len(records) < len(requested):
            raise MissingPartitions(self.product, stage, set(requested) - set(records))
        return self._load(stage, records, columns)

    def read_exact(self, stage: str, digests: Mapping[str, str]) -> pl.DataFrame:
        """Return the rows that keys had when their content digests were these, verified; see `read`.

        Raises:
            TableProblem: a key never had that content, or its files are missing.
        """
        records = self._records(stage).exact(digests)
        if len(records) < len(digests):
            never = set(digests) - set(records)
            raise TableProblem(f"{self.product}/{stage}: no record of the requested content of {plural(never)}.")
        return self._load(stage, records, None)

    def read_record(self, record: PartitionRecord, columns: Sequence[str]) -> pl.DataFrame:
        """Return some columns of a record's rows, whose digest is not verified; see `read`."""
        return self._load(record.stage, {record.key: record}, columns)

    def verify(self, record: PartitionRecord) -> None:
        """Compare a record's files with its digest, some columns at a time.

        Raises:
            DigestMismatch: the content does not match the record.
            TableProblem: files are missing.
        """
        location = naming.table_location(self.root, self.product, record.stage)
        verify_recorded(f"{self.product}/{record.stage}", location, record)

    def damaged(self, stage: str, records: Mapping[str, PartitionRecord]) -> set[str]:
        """Return the keys whose files do not match their records. Costs reading them all."""
        records = {key: record for key, record in records.items() if record.columns}
        if not records:
            return set()
        try:
            self._load(stage, records, None)
        except TableProblem:
            if len(records) == 1:
                return set(records)
            return {key for key, record in records.items() if self.damaged(stage, {key: record})}
        return set()

    def _records(self, stage: str) -> Records:
        return Records(self.root, self.product, stage)

    def _body(self, stage: str, key: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a key's rows without the column `key`; refuse another key's rows and reserved names."""
        _check_key(stage, key)
        if ROW in frame.columns:
            raise TableProblem(
                f"{self.product}/{stage}: the frame of key {key} has a column {ROW!r}, which is reserved."
            )
        if KEY not in frame.columns:
            return frame
        if foreign := set(frame.get_column(KEY).to_list()) - {key}:
            raise TableProblem(
                f"{self.product}/{stage}: the frame of key {key} has rows of {plural(map(str, foreign))}; "
                "pass each key's rows under its own key."
            )
        return frame.drop(KEY)

    def _load(self, stage: str, records: Mapping[str, PartitionRecord], columns: Sequence[str] | None) -> pl.DataFrame:
        location = naming.table_location(self.root, self.product, stage)
        return read_recorded(f"{self.product}/{stage}", location, list(records.values()), columns)

    def _commit(
        self,
        stage: str,
        location: str,
        rows: pl.DataFrame,
        keys: list[str],
        columns: Mapping[str, str],
        table: DeltaTable,
        metadata: Mapping[str, str],
    ) -> int:
        """Replace keys in one commit and return its version; add columns, or change types where that is safe."""
        write = partial(delta.commit, location, table, rows, metadata, files=len(keys))
        stored = {field["name"]: field["type"] for field in json.loads(table.schema().to_json())["fields"]}
        changed = [name for name, kind in columns.items() if stored.get(name) not in (None, content.delta_type(kind))]
        if not changed:
            named = ", ".join(f"'{key}'" for key in keys)
            # By predicate: of two writers of one new key one stays, where two appends would both stay.
            return write(mode="overwrite", predicate=f"{KEY} IN ({named})", schema_mode="merge")
        # Another type replaces the schema of the whole table, and with it the rows of every key.
        if unchanged := {partition[KEY] for partition in table.partitions()} - set(keys):
            changes = ", ".join(f"{name} from {stored[name]} to {columns[name]}" for name in changed)
            raise TableProblem(
                f"{self.product}/{stage}: column types changed ({changes}) while {plural(unchanged)} would keep the "
                "old ones; give the column a new name, or materialise every key in one run."
            )
        return write(mode="overwrite", schema_mode="overwrite", partition_by=[KEY])


def _check_key(stage: str, key: str) -> None:
    if not _KEY.fullmatch(key):
        raise TableProblem(f"key {key!r} of {stage} cannot name a partition; expected letters, digits, '-', '_', '.'.")
