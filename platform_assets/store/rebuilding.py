"""Rebuild lost partition records, from what is left of them and from the commits of the rows.

A commit of rows stores its records' content until `upkeep` cleans its log. For older rows, the files show what a key
holds, but not what it was made from: such a key is recomputed when it is next materialised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import polars as pl

from platform_assets.base import naming
from platform_assets.store import content, delta, objects, torn
from platform_assets.store.partition_records import PartitionRecord, Records, record_of, records_from
from platform_assets.store.reading import KEY, ROW
from platform_assets.store.record_index import SCHEMA

IS_REBUILT = {"is_rebuilt": True}
"""Notes of a record that was rebuilt from the rows alone."""


def rebuild(root: str, product: str, stage: str) -> list[PartitionRecord]:
    """Return every record of a stage that can be read or rebuilt, the oldest first.

    Raises:
        TableProblem: the data table itself cannot be opened.
    """
    candidates = [*_readable(naming.records_location(root, product, stage), stage), *_committed(root, product, stage)]
    records = {(record.key, record.sequence): record for record in candidates}
    named = {(record.key, record.files) for record in records.values()}
    for record in _from_rows(root, product, stage):
        if (record.key, record.files) not in named:
            records[record.key, record.sequence] = record
    return sorted(records.values(), key=lambda record: (record.sequence, record.key))


def restore(root: str, product: str, stage: str, records: list[PartitionRecord], aside: str) -> None:
    """Replace a stage's unreadable records, which are kept under another name.

    Args:
        stage: the stage's full name.
        records: from `rebuild`.
        aside: suffix for the old table's name.
    """
    import obstore

    location = naming.records_location(root, product, stage)
    store = objects.open_store(root)
    below = naming.records_location("", product, stage).lstrip("/")
    with delta.storage_errors(location, "could not be put aside"):
        paths = [item["path"] for batch in obstore.list(store, below) for item in batch]
        for path in paths:
            obstore.rename(store, path, f"{below}{aside}{path.removeprefix(below)}")
    Records(root, product, stage).append(records)


def _readable(location: str, stage: str) -> Iterator[PartitionRecord]:
    """Yield the records in the still readable files of their table, including folded ones."""
    import obstore

    if not objects.is_there(location):
        return
    for batch in obstore.list(objects.open_store(location)):
        for item in batch:
            if item["path"].endswith(".parquet") and not item["path"].startswith(torn.LOG):
                with contextlib.suppress(pl.exceptions.PolarsError, OSError):  # a torn file has nothing to give
                    file = naming.join(location, item["path"])
                    rows = pl.scan_parquet(file, glob=False, hive_partitioning=False, schema=SCHEMA).collect()
                    yield from (record_of(stage, row) for row in rows.rows())


def _committed(root: str, product: str, stage: str) -> Iterator[PartitionRecord]:
    """Yield the records stored in the commits of rows."""
    location = naming.table_location(root, product, stage)
    if not objects.is_there(location):
        return
    for file in torn.log_files(objects.open_store(location)):
        if file.is_checkpoint or not file.size:
            continue
        texts = (action.commit_info.records for action in delta.actions(location, file.version))
        if text := next(filter(None, texts), None):
            yield from records_from(text, stage, file.version, delta.files_by_key(location, file.version))


def _from_rows(root: str, product: str, stage: str) -> Iterator[PartitionRecord]:
    """Yield records of the newest version's files; a key with an unreadable file is skipped."""
    location = naming.table_location(root, product, stage)
    table = delta.open_table(location)
    if table is None:
        return
    added = pl.DataFrame(table.get_add_actions(flatten=True)).select("path", key=f"partition.{KEY}").sort("path")
    for (key,), of_key in added.group_by("key", maintain_order=True):
        files = tuple(of_key["path"])
        try:
            parts = [pl.read_parquet(naming.join(location, file), hive_partitioning=False) for file in files]
        except (pl.exceptions.PolarsError, OSError):
            continue
        rows = pl.concat(parts)
        body = rows.sort(ROW, maintain_order=True).drop(ROW) if ROW in rows.columns else rows
        yield PartitionRecord(
            stage=stage,
            key=str(key),
            sequence=table.version(),
            rows=body.height,
            content_digest=content.content_digest(body),
            inputs={},
            code_digest="",
            notes=IS_REBUILT,
            columns=content.columns_of(body),
            files=files,
        )
