"""Find partition records by key, and keep in memory what was found while the table's log says that it still holds.

A process asks for the same few records again and again: each stage of a run, each tick of a sensor. Opening a Delta
table costs milliseconds and grows with its log, asking whether its newest version is still the newest one costs two
small requests. Tables of more than `MOST_ROWS` records are read by key each time, so that memory stays bounded.

A log's file is created once and never changed. One that is gone, or is another file, belongs to another table.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from platform_assets import naming
from platform_assets.storage import delta, objects, torn
from platform_assets.storage.objects import reason
from platform_assets.storage.problems import TableProblem

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MOST_ROWS, MOST_TABLES = 4_096, 512
SCHEMA = pl.Schema(
    {
        "key": pl.String(),
        "sequence": pl.Int64(),
        "rows": pl.Int64(),
        "content_digest": pl.String(),
        "code_digest": pl.String(),
        "inputs": pl.String(),
        "notes": pl.String(),
        "columns": pl.String(),
        "files": pl.String(),
    }
)
Row = tuple[Any, ...]
"""A record as stored: the columns of `SCHEMA`."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Records of one table; never changed once made.

    Attributes:
        newest: the record of the highest sequence, by key.
        contents: the same among those with a content digest, by key and digest.
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


def find(place: str, keys: Collection[str] | None) -> Index:
    """Return the records at a place: at least those of the keys, of every key for None.

    Raises:
        TableProblem: when the table cannot be opened or read.
    """
    with _lock:
        table = _tables.setdefault(place, _Table(place))
        _tables.move_to_end(place)
        while len(_tables) > MOST_TABLES:
            _tables.popitem(last=False)
    with table.lock:
        table.refresh()
        files, index = table.files, table.index
    return Index().extended(_read(place, files, keys)) if index is None else index


class _Table:
    """What is known of one table: the files of its newest version, and their records unless they are many."""

    def __init__(self, place: str) -> None:
        self.lock = threading.Lock()
        self.files: frozenset[str] = frozenset()
        self.index: Index | None = Index()
        self._place = place
        self._version = -1
        self._store: ObjectStore | None = None
        self._stamp: tuple[Any, ...] | None = None

    def refresh(self) -> None:
        """Read what was committed since the last look, or all of a table that is not the one of that look."""
        with delta.storage_errors(self._place, "cannot be opened"):
            is_same = self._stamp is not None and self._stamp == self._stamp_of(self._version)
        if not is_same:
            self._open()
        while (stamp := self._next()) is not None:
            self._take(stamp)

    def _open(self) -> None:
        self._stamp = None
        with delta.storage_errors(self._place, "cannot be opened"):
            torn.undo_torn_commits(self._place, with_files=True)
        table = delta.open_table(self._place)
        if table is None:
            self.files, self.index = frozenset(), Index()
            return
        # The table has no partitions, so all of its files lie side by side.
        self.files = frozenset(naming.join(self._place, uri.rsplit("/", 1)[1]) for uri in table.file_uris())
        self.index = self._extended(Index(), self.files)
        self._version = table.version()
        with delta.storage_errors(self._place, "cannot be opened"):
            self._store = objects.open_store(self._place)
            self._stamp = self._stamp_of(self._version)

    def _next(self) -> tuple[Any, ...] | None:
        with delta.storage_errors(self._place, "cannot be opened"):
            return None if self._stamp is None else self._stamp_of(self._version + 1)

    def _take(self, stamp: tuple[Any, ...]) -> None:
        """Take in one more version, whose file in the log has this stamp."""
        actions = delta.actions(self._place, self._version + 1)
        added = {naming.join(self._place, action.add.path) for action in actions if action.add}
        gone = {naming.join(self._place, action.remove.path) for action in actions if action.remove}
        files = self.files - gone | added
        index = Index() if gone else self.index
        if index is not None:
            index = self._extended(index, files if gone else files - self.files)
        self.files, self.index, self._version, self._stamp = files, index, self._version + 1, stamp

    def _extended(self, index: Index, files: Collection[str]) -> Index | None:
        """Return the index with the records of more files; None when they are too many to be kept."""
        if files and len(index.contents) + _height(self._place, files) > MOST_ROWS:
            return None
        return index.extended(_read(self._place, files, None))

    def _stamp_of(self, version: int) -> tuple[Any, ...] | None:
        """Return what tells the file of a version from any other, None when there is none."""
        import obstore

        assert self._store is not None
        try:
            found = obstore.head(self._store, f"_delta_log/{version:020d}.json")
        except FileNotFoundError:
            return None
        return found["e_tag"], found["size"], found["last_modified"]


_tables: OrderedDict[str, _Table] = OrderedDict()
_lock = threading.Lock()


def _height(place: str, files: Collection[str]) -> int:
    return int(_collected(place, _scanned(files).select(pl.len())).item())


def _read(place: str, files: Collection[str], keys: Collection[str] | None) -> pl.DataFrame:
    if not files:
        return pl.DataFrame(schema=SCHEMA)
    lazy = _scanned(files)
    return _collected(place, lazy if keys is None else lazy.filter(pl.col("key").is_in(list(keys))))


def _scanned(files: Collection[str]) -> pl.LazyFrame:
    return pl.scan_parquet(sorted(files), glob=False, hive_partitioning=False, schema=SCHEMA)


def _collected(place: str, lazy: pl.LazyFrame) -> pl.DataFrame:
    try:
        return lazy.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableProblem(
            f"the records at {place} cannot be read: {reason(place, error)}. "
            "`driftline doctor` says what can be rebuilt."
        ) from error
