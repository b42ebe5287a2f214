"""Store the partition records of a stage: the content of each key, its inputs and its code.

A record never changes. The record with a key's highest `sequence` is the key's current content; older ones still map
content digests to files. Appends never conflict. Every `FOLD_AT` files the table is folded into one, so that reading it
stays a few requests.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from platform_assets.base import naming
from platform_assets.store import delta, record_index, torn
from platform_assets.store.artifacts import canonical
from platform_assets.store.record_index import SCHEMA

FOLD_AT = 16
_JSON = ("inputs", "versions", "notes", "columns", "files")

Versions = Mapping[str, tuple[str, ...]]
"""The versions of the stages that rows come from, by the stage's full name; several where rows of several were read."""


@dataclass(frozen=True, kw_only=True)
class PartitionRecord:
    """The content of one key of a stage.

    Attributes:
        stage: the stage's full name, such as `raw_weather`.
        sequence: the version of the table with the rows; a counter for a stage without a table.
        rows: number of rows; 0 is content too.
        content_digest: `content_digest` of the rows without their key, or an artifact's sha256.
        inputs: the digests it was made from, by name.
        code_digest: the digest of the code that made it.
        versions: of the stage itself and of all stages before it, as far as they have one.
        notes: stage-specific metadata, such as an upstream file's uri and sha256.
        columns: type names by column, in order (`content.type_of`); empty without a table.
        files: the files with the rows, relative to the table's location.
    """

    stage: str
    key: str
    sequence: int
    rows: int
    content_digest: str
    inputs: Mapping[str, str]
    code_digest: str
    versions: Versions = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def matches(self, inputs: Mapping[str, str], code: str, versions: Versions | None = None) -> bool:
        """Tell whether the key is up to date: same input digests, same code digest, and same versions if they count."""
        is_same = versions is None or dict(self.versions) == dict(versions)
        return is_same and dict(self.inputs) == dict(inputs) and self.code_digest == code


RECORDS = "driftline_records"
"""Name of the metadata of a commit of rows that stores its records."""


def records_text(records: Iterable[PartitionRecord]) -> str:
    """Serialise records as one JSON text: the stored rows, without sequence and files."""
    return canonical([_row(record) for record in records]).decode()


def records_from(text: str, stage: str, sequence: int, files: Mapping[str, Sequence[str]]) -> list[PartitionRecord]:
    """Parse a `records_text`, adding the commit's version and its files by key."""
    rows = [record_of(stage, tuple(row[name] for name in SCHEMA)) for row in json.loads(text)]
    return [replace(record, sequence=sequence, files=tuple(files.get(record.key, ()))) for record in rows]


class Records:
    """The records of one stage."""

    def __init__(self, root: str, product: str, stage: str) -> None:
        """Name the records' table without opening it."""
        self._stage = stage
        self._location = naming.records_location(root, product, stage)

    def append(self, records: Iterable[PartitionRecord]) -> None:
        """Add records in one commit."""
        from deltalake import exceptions

        rows = [_row(record) for record in records]
        frame = pl.DataFrame(rows, schema=SCHEMA)
        with delta.storage_errors(self._location, "cannot be written"):
            torn.undo_torn_commits(self._location, with_files=True)
        with delta.writing(self._location, frame.clear()) as table:
            delta.retry(self._location, lambda: delta.commit(self._location, table, frame, mode="append"), table)
            if len(table.file_uris()) < FOLD_AT:
                return
            with (
                delta.storage_errors(self._location, "could not be folded"),
                contextlib.suppress(exceptions.CommitFailedError),  # somebody wrote meanwhile; the next append folds
            ):
                # Records differ in almost every column, so dictionaries do not pay off, however many records there are.
                table.optimize.compact(writer_properties=delta.writer(0))
                delta.make_durable(self._location, table.version())

    def newest(self, keys: Iterable[str] | None = None) -> dict[str, PartitionRecord]:
        """Return the newest record of each key (all keys by default); a key without one is absent."""
        requested = None if keys is None else set(keys)
        newest = record_index.find(self._location, requested).newest
        names = newest if requested is None else requested & newest.keys()
        return {key: record_of(self._stage, newest[key]) for key in sorted(names)}

    def exact(self, digests: Mapping[str, str]) -> dict[str, PartitionRecord]:
        """Return the newest record per key with the given content digest; absent where there never was one."""
        contents = record_index.find(self._location, digests).contents
        requested = {key: contents.get((key, digest)) for key, digest in sorted(digests.items())}
        return {key: record_of(self._stage, row) for key, row in requested.items() if row is not None}

    def versions(self, key: str) -> list[PartitionRecord]:
        """Return the newest record of each content that a key has had, newest first."""
        contents = record_index.find(self._location, [key]).contents
        rows = [row for (name, _), row in contents.items() if name == key]
        return sorted((record_of(self._stage, row) for row in rows), key=lambda record: record.sequence, reverse=True)


def record_of(stage: str, row: record_index.Row) -> PartitionRecord:
    """Convert a stored row to a record."""
    stored = dict(zip(SCHEMA, row, strict=True))
    parsed = {name: json.loads(stored[name]) for name in _JSON}
    parsed["files"] = tuple(parsed["files"])
    parsed["columns"] = dict(parsed["columns"])
    parsed["versions"] = {name: tuple(versions) for name, versions in parsed["versions"].items()}
    return PartitionRecord(stage=stage, **{**stored, **parsed})


def _row(record: PartitionRecord) -> dict[str, str | int]:
    members = {
        "inputs": dict(record.inputs),
        "versions": {name: list(versions) for name, versions in record.versions.items()},
        "notes": dict(record.notes),
        # Pairs, because canonical JSON sorts the members of an object and columns have an order.
        "columns": [list(pair) for pair in record.columns.items()],
        "files": list(record.files),
    }
    plain = {name: getattr(record, name) for name in SCHEMA if name not in members}
    return {**plain, **{name: canonical(value).decode() for name, value in members.items()}}
