"""Read the files that partition records name, and verify their content.

A record names columns, types and files, so the data table is never opened: its newest version may already have
rows without a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from platform_assets.base import naming
from platform_assets.store import content
from platform_assets.store.objects import reason
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.problems import DigestMismatch, TableProblem

KEY, ROW = "key", "_row"
_FILE = "_file"
_ABSENT = "nothing"
# 89 fields of a million rows are 712 MB when they are all held.
_COLUMNS_AT_ONCE = 8


def read_recorded(
    title: str, location: str, records: Sequence[PartitionRecord], columns: Sequence[str] | None
) -> pl.DataFrame:
    """Return the rows of records, ordered by key and then as written, with a column `key`.

    Args:
        title: product and stage, for messages.
        location: the data table's.
        records: one per key, sorted by key.
        columns: which columns besides `key`; all by default, and only then are the digests verified.

    Raises:
        DigestMismatch: the content does not match a record.
        TableProblem: no records, records differ in a column, or a column or a file is missing.
    """
    if not records:
        raise TableProblem(f"{title} was read without any key; pass at least one.")
    first = records[0]
    chosen = {name: first.columns.get(name, _ABSENT) for name in columns or first.columns if name != KEY}
    for record in records:
        theirs = record.columns if columns is None else {name: record.columns.get(name, _ABSENT) for name in chosen}
        if theirs != chosen:
            raise TableProblem(
                f"{title}: keys {first.key} and {record.key} differ: {difference(chosen, theirs)}; materialise the "
                "older ones again, or read only columns that both have."
            )
    if absent := [name for name, kind in chosen.items() if kind == _ABSENT]:
        raise TableProblem(f"{title} has no column {', '.join(absent)}; it has {', '.join(first.columns)}.")
    schema = {name: content.type_of(kind) for name, kind in chosen.items()}
    key_by_file = {naming.join(location, file): record.key for record in records for file in record.files}
    frame = _scan(title, location, key_by_file, schema)
    heights = dict(frame.group_by(KEY).len().iter_rows())
    start = 0
    for record in records:
        rows = frame.slice(start, heights.get(record.key, 0)).drop(KEY)
        # The digest covers whole rows, so a read of some columns can only count them; `verify_recorded` compares all.
        if rows.height != record.rows or (columns is None and content.content_digest(rows) != record.content_digest):
            raise _mismatch(title, record, rows.height)
        start += rows.height
    return frame


def verify_recorded(title: str, location: str, record: PartitionRecord) -> None:
    """Compare a record's digest with its files, of which some columns are held at a time.

    Raises:
        DigestMismatch, TableProblem: as `read_recorded`.
    """
    names = sorted(record.columns)
    groups = (names[at : at + _COLUMNS_AT_ONCE] for at in range(0, len(names), _COLUMNS_AT_ONCE))
    frames = (read_recorded(title, location, [record], group).drop(KEY) for group in groups)
    if content.digest_of_groups(record.rows, frames) != record.content_digest:
        raise _mismatch(title, record, record.rows)


def _mismatch(title: str, record: PartitionRecord, rows: int) -> DigestMismatch:
    return DigestMismatch(
        f"{title}, key {record.key}: rows read: {rows}; recorded: {record.rows} with digest {record.content_digest}. "
        "They differ, so its files were changed. Materialise the key again."
    )


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Describe the differences between two mappings of columns to type names, as one clause."""
    differing = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} is {one.get(name, _ABSENT)} and {other.get(name, _ABSENT)}" for name in differing)


def _scan(title: str, location: str, key_by_file: Mapping[str, str], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    if not key_by_file:
        return pl.DataFrame(schema={KEY: pl.String(), **schema})
    try:
        rows = pl.scan_parquet(
            list(key_by_file),
            # polars reads * and [ of a path as a pattern.
            glob=False,
            hive_partitioning=False,
            schema={ROW: pl.Int64(), **schema},
            # Small tables have no row numbers; their rows are in one file, in the order they were written.
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths=_FILE,
        ).collect()
    except FileNotFoundError as error:
        raise TableProblem(
            f"{title}: a file of the requested content is gone ({reason(location, error)}); maintenance or another "
            "program removed it. Materialise its key again."
        ) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableProblem(f"{title} cannot be read: {reason(location, error)}.") from error
    keys = pl.col(_FILE).replace_strict(key_by_file, return_dtype=pl.String).alias(KEY)
    # Stable, because files without row numbers have the order in which they were written.
    return rows.with_columns(keys).sort(KEY, ROW, maintain_order=True).select(KEY, *schema)
