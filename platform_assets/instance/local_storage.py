"""Keep Dagster's runs, events and ticks in SQLite, with one engine per database and process.

Dagster's own SQLite storage makes an engine for every query. SQLAlchemy caches compiled statements per engine, so each
statement was compiled again, which took half of an event's time. It also compares each database with its migrations
whenever an instance is made, and every sensor tick makes one. And it stores each event in transactions of its own, also
where Dagster hands over many at once (`DAGSTER_EVENT_BATCH_SIZE`). The databases are the same.

No issue of Dagster about this in SQLite is known. Written for dagster 1.13.27 and tested with it. `enabled: false` in
`deploy/dagster/dagster.yaml` turns it off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from platform_assets.base import logs

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData
    from sqlalchemy.engine import Connection, Engine

logs.install()  # whatever of Dagster's processes this is: they all open its storage

MOST_ENGINES = 64
"""A daemon reads the databases of many runs, each with an engine of its own."""
_prepared: dict[str, int] = {}
"""Inodes by address of the databases that this process has compared with Dagster's migrations."""
_present: set[tuple[str, str]] = set()
"""Addresses of databases, each with a table or column that it has. Dagster's migrations remove none of these."""


class LocalStorage(DagsterSqliteStorage):
    """All of Dagster's storage on one machine, in the folders of Dagster's own."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        history = Path(base_dir) / "history"
        self._run_storage = Runs.from_local(str(history))
        self._event_log_storage = Events(str(history / "runs"))
        self._schedule_storage = Ticks.from_local(str(Path(base_dir) / "schedules"))
        self._inst_data = inst_data
        super(DagsterSqliteStorage, self).__init__()

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the settings."""
        return {"base_dir": dg.StringSource, "enabled": dg.Field(bool, default_value=True)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """Return the storage in the configured `base_dir`: this one, or Dagster's own if it is turned off."""
        kind = cls if config_value["enabled"] else DagsterSqliteStorage
        return kind.from_local(config_value["base_dir"], inst_data)


class _OneEngine:
    """Half of a storage with one database: made and checked once per process, with one engine."""

    NAME: str

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> Any:
        """Return the database in a folder; create or check it unless this process has done so."""
        location = create_db_conn_string(base_dir, cls.NAME)
        if not _is_prepared(location):
            super().from_local(base_dir, inst_data)  # type: ignore[misc]  # of the other half
            _note_prepared(location)
        return cls(location, inst_data)  # type: ignore[call-arg]

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection for one transaction."""
        with _engine(self._conn_string).begin() as connection:  # type: ignore[attr-defined]
            yield connection


class Runs(_OneEngine, SqliteRunStorage):
    """The database of runs."""

    NAME = "runs"


class Ticks(_OneEngine, SqliteScheduleStorage):
    """The database of sensor ticks."""

    NAME = "schedules"


class Events(SqliteEventLogStorage):
    """One database of events per run, and one of asset events across runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._batch = _Batch()  # the constructor opens connections
        super().__init__(base_dir, inst_data)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events in one transaction per database; if one cannot be stored, none is.

        Dagster then stores them one by one.
        """
        with self._db_lock, ExitStack() as stack:
            for shard in (INDEX_SHARD_NAME, *dict.fromkeys(event.run_id for event in events)):
                self._batch.connections[shard] = stack.enter_context(self._begun(shard))
                stack.callback(self._batch.connections.pop, shard)
            for event in events:
                self.store_event(event)

    def run_connection(self, run_id: str | None = None) -> Any:
        """Open a connection to a run's database for one transaction."""
        return self._open(str(run_id))

    def index_connection(self) -> Any:
        """Open a connection to the database of asset events for one transaction."""
        return self._open(INDEX_SHARD_NAME)

    def has_table(self, table_name: str) -> bool:
        """Return whether the database of asset events has a table; Dagster asks at every event."""
        engine = _engine(location := self.conn_string_for_shard(INDEX_SHARD_NAME))
        if (location, table_name) not in _present:
            with engine.connect() as connection:
                if not engine.dialect.has_table(connection, table_name):
                    return False
            _present.add((location, table_name))
        return True

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        """Return whether the table of assets has a column; Dagster asks at every event."""
        column = (self.conn_string_for_shard(INDEX_SHARD_NAME), f"asset_keys.{column_name}")
        if column not in _present and super()._has_asset_key_col_on_connection(conn, column_name):
            _present.add(column)
        return column in _present

    @contextmanager
    def _open(self, shard: str) -> Iterator[Connection]:
        if shard in self._batch.connections:
            yield self._batch.connections[shard]
            return
        with self._db_lock, self._begun(shard) as connection:
            yield connection

    @contextmanager
    def _begun(self, shard: str) -> Iterator[Connection]:
        location = self.conn_string_for_shard(shard)
        if not _is_prepared(location):
            self._initdb(_engine(location))
            _note_prepared(location)
        with _engine(location).begin() as connection:
            yield connection


class _Batch(threading.local):
    """By database, the connections of the batch that this thread is storing."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}


@lru_cache(maxsize=MOST_ENGINES)
def _engine(location: str) -> Engine:
    """Return the engine of a database; it keeps no connection open."""
    return create_engine(location, poolclass=NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})


def _is_prepared(location: str) -> bool:
    """Return whether this process has checked the database, and it is still the same file."""
    return location in _prepared and _prepared[location] == _inode(location)


def _note_prepared(location: str) -> None:
    inode = _inode(location)
    if inode is not None:
        _prepared[location] = inode


def _inode(location: str) -> int | None:
    path = Path(location.removeprefix("sqlite:///"))
    return path.stat().st_ino if path.exists() else None
