"""Look up partition records by key, and cache them until the table's log changes.

A process needs the same few records again and again: every stage of a run, every tick of a sensor. Opening a Delta
table costs milliseconds and grows with its log; checking whether the newest version is still the newest costs two small
requests. Tables of more than `MOST_ROWS` records are read by key each time, so that memory stays bounded.

A file of the log is created once and never changed. If it is gone or another file, the table was replaced.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from platform_assets.base import naming
from platform_assets.store import delta, handles, objects, torn
from platform_assets.store.objects import reason
from platform_assets.store.problems import TableProblem

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MOST_ROWS, MOST_TABLES = 4_096, 512
SCHEMA = pl.Schema(
    {
        "key": pl.String(),
        **dict.fromkeys(("sequence", "rows"), pl.Int64()),
        **dict.fromkeys(("content_digest", "code_digest"), pl.String()),
        # Texts of JSON; `partition_records` parses them.
        **dict.fromkeys(("inputs", "versions", "notes", "columns", "files"), pl.String()),
    }
)
Row = tuple[Any, ...]
"""A record as stored: the columns of `SCHEMA`."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Records of one table; immutable.

    Attributes:
        newest: the record with the highest sequence, by key.
        contents: the newest record per key and content digest.
    """

    newest: Mapping[str, Row] = field(default_factory=dict)
    contents: Mapping[tuple[str, str], Row] = field(default_factory=dict)

    def extended(self, frame: pl.DataFrame) -> Index:
        """Return the index with more records."""
        newest, contents = dict(self.newest), dict(self.contents)
        for row in frame.rows():
            key, sequence, _, digest, *_ = row
            if key not in newest or (sequence, digest) >= (newest[key][1], newest[key][3]):
                newest[key] = row
            if (key, digest) not in contents or sequence >= contents[key, digest][1]:
                contents[key, digest] = row
        return Index(newest=newest, contents=contents)


def find(location: str, keys: Collection[str] | None) -> Index:
    """Return a table's records: at least those of the keys, or of every key for None.

    Raises:
        TableProblem: the table cannot be opened or read.
    """
    with _lock:
        table = _tables.setdefault(location, _Table(location))
        _tables.move_to_end(location)
        while len(_tables) > MOST_TABLES:
            _tables.popitem(last=False)
    with table.lock:  # of one table, so that a slow one holds up no other
        table.refresh()
        files, index = table.files, table.index
    return Index().extended(_read(location, files, keys)) if index is None else index


class _Table:
    """Cached state of one table: the files of its newest version, and their records unless there are too many."""

    def __init__(self, location: str) -> None:
        self.lock = threading.Lock()
        self.files: frozenset[str] = frozenset()
        self.index: Index | None = Index()
        self._location = location
        self._version = -1
        self._store: ObjectStore | None = None
        self._mark: str | None = None

    def refresh(self) -> None:
        """Read what was committed since the last refresh, or everything if the table was replaced."""
        with delta.storage_errors(self._location, "cannot be opened"):
            is_same = self._mark is not None and self._mark == self._mark_of(self._version)
        if not is_same:
            self._mark = None
            with delta.storage_errors(self._location, "cannot be opened"):
                torn.undo_torn_commits(self._location, with_files=True)
            table = delta.open_table(self._location)
            if table is None:
                self.files, self.index = frozenset(), Index()
                return
            # The table has no partitions, so all its files are in one folder.
            self.files = frozenset(naming.join(self._location, uri.rsplit("/", 1)[1]) for uri in table.file_uris())
            self.index = self._extended(Index(), self.files)
            self._version = table.version()
            with delta.storage_errors(self._location, "cannot be opened"):
                self._store = objects.open_store(self._location)
                self._mark = self._mark_of(self._version)
                handles.keep(self._location, table, self._mark)
        while True:
            with delta.storage_errors(self._location, "cannot be opened"):
                mark = None if self._mark is None else self._mark_of(self._version + 1)
            if mark is None:
                return
            # Apply the next version, whose log file has this mark.
            actions = delta.actions(self._location, self._version + 1)
            added = {naming.join(self._location, action.add.path) for action in actions if action.add}
            gone = {naming.join(self._location, action.remove.path) for action in actions if action.remove}
            files = self.files - gone | added
            index = Index() if gone else self.index
            if index is not None:
                index = self._extended(index, files if gone else files - self.files)
            self.files, self.index, self._version, self._mark = files, index, self._version + 1, mark

    def _extended(self, index: Index, files: Collection[str]) -> Index | None:
        """Return the index with the records of more files; None when they are too many to cache."""
        if files:
            height = _collected(self._location, _scanned(files).select(pl.len())).item()
            if len(index.contents) + height > MOST_ROWS:
                return None
        return index.extended(_read(self._location, files, None))

    def _mark_of(self, version: int) -> str | None:
        """Return the mark of a version's log file, None when there is no such version."""
        assert self._store is not None
        return objects.mark(self._store, handles.log_file(version))


_tables: OrderedDict[str, _Table] = OrderedDict()
_lock = threading.Lock()


def _read(location: str, files: Collection[str], keys: Collection[str] | None) -> pl.DataFrame:
    if not files:
        return pl.DataFrame(schema=SCHEMA)
    lazy = _scanned(files)
    return _collected(location, lazy if keys is None else lazy.filter(pl.col("key").is_in(list(keys))))


def _scanned(files: Collection[str]) -> pl.LazyFrame:
    return pl.scan_parquet(sorted(files), glob=False, hive_partitioning=False, schema=SCHEMA)


def _collected(location: str, lazy: pl.LazyFrame) -> pl.DataFrame:
    try:
        return lazy.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableProblem(
            f"the records at {location} cannot be read: {reason(location, error)}. "
            "`driftline doctor` shows what can be rebuilt."
        ) from error
