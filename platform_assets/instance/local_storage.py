"""Keep Dagster's runs, events and ticks in SQLite, with one engine per database and process.

Dagster's own SQLite storage makes an engine for every query. SQLAlchemy caches compiled statements per engine, so each
statement was compiled again, which took half of an event's time. It also compares each database with its migrations
whenever an instance is made, and every sensor tick makes one. And it opens a connection per transaction, 688 in
a run of one key, and folds SQLite's log into the database as each closes. The databases are the same.

No issue of Dagster about this in SQLite is known. Written for dagster 1.13.27 and tested with it. `enabled: false` in
`deploy/dagster/dagster.yaml` turns it off.
"""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from platform_assets.base import logs

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData
    from sqlalchemy.engine import Connection, Engine

logs.install()  # whatever of Dagster's processes this is: they all open its storage

MOST_ENGINES = 64
"""A daemon reads the databases of many runs, each with an engine of its own."""
_engines: OrderedDict[tuple[str, int | None], Engine] = OrderedDict()
"""By address and inode, of databases that were compared with Dagster's migrations; one made again is another."""
_lock = threading.Lock()
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
        super(DagsterSqliteStorage, self).__init__()  # its own would make its three storages

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

    def run_connection(self, run_id: str | None = None) -> Any:
        """Open a connection to a run's database for one transaction."""
        return self._open(str(run_id))

    def index_connection(self) -> Any:
        """Open a connection to the database of asset events for one transaction."""
        return self._open(INDEX_SHARD_NAME)

    def has_table(self, table_name: str) -> bool:
        """Return whether the database of asset events has a table; Dagster asks at every event."""
        engine = _engine(location := self.conn_string_for_shard(INDEX_SHARD_NAME))
        # Dagster inspects the database at each event: 4.59 instead of 1.63 CPU s for 200 keys of one asset.
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
        location = self.conn_string_for_shard(shard)
        with self._db_lock:
            if not _is_prepared(location):
                self._initdb(_made(location, poolclass=NullPool))
            with _engine(location).begin() as connection:
                yield connection


def close() -> None:
    """Close the connections of this process, which folds SQLite's logs into the databases that nobody else has open."""
    with _lock:
        engines = [_engines.popitem()[1] for _ in [*_engines]]
    for engine in engines:
        engine.dispose()


atexit.register(close)


def _engine(location: str) -> Engine:
    """Return the engine of a database's file, whose connections stay open."""
    name = (location, _inode(location))
    with _lock:
        # With an engine per query a run of 200 keys took 3.54 instead of 2.01 CPU s, an instance 58 ms instead of 4.
        if name not in _engines:
            # As many connections at once as threads ask for, as without a pool: the webserver's would time out.
            _engines[name] = _made(location, poolclass=QueuePool, max_overflow=-1)
        _engines.move_to_end(name)
        engine = _engines[name]
        ended = [_engines.popitem(last=False)[1] for _ in range(len(_engines) - MOST_ENGINES)]
    for old in ended:
        old.dispose()
    return engine


def _made(location: str, **pool: Any) -> Engine:
    engine = create_engine(location, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}, **pool)
    # SQLite flushes the disk when it folds its log, not at each of a run's 700 transactions: a power cut costs the last
    # of them, never the database. The store is flushed at each write, and what was under way is done again.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
    return engine


def _is_prepared(location: str) -> bool:
    return (location, _inode(location)) in _engines


def _inode(location: str) -> int | None:
    path = Path(location.removeprefix("sqlite:///"))
    return path.stat().st_ino if path.exists() else None
