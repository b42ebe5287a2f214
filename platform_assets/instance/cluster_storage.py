"""Keep Dagster's runs, events and ticks in PostgreSQL, over connections that stay open.

Dagster's own storage opens a connection for every query, hundreds of them for one run, and lists the database's tables
whenever an instance is made, which every sensor tick does. To open one, server and client hash the password thousands
of times, and the server starts a process: that costs more than the query. It also stores what a run plans, an event per
key and asset, in three transactions per event, and the run waits for them before it starts. The tables are the same.

Connections: dagster-io/dagster#20325. Planned events: dagster-io/dagster#32242 and #33831, whose pull request #33832 is
open. Written for dagster 1.13.27 with dagster-postgres 0.29.27 and tested with them. `enabled: false` in
`deploy/kubernetes/base/dagster.yaml` turns it off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config

from platform_assets.base import logs

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData
    from dagster_postgres.auth import PgTokenProvider
    from sqlalchemy.engine import Connection, Engine

logs.install()  # whatever of Dagster's processes this is: they all open its storage

# Dagster opens a connection per query, which costs more CPU than the query; PgBouncer would be one more deployment.
HELD = 4
"""Connections that a process keeps at most; threads beyond them open one for a moment, as Dagster's storage does."""
RECYCLED_S = 300
SILENT_MS = 20_000
"""A server that confirms nothing for this long, such as one on a lost node, counts as gone."""
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": SILENT_MS}
_engines: dict[str, Engine] = {}
"""By the address of a database, whose tables this process has looked for."""
PLANNED = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}


class ClusterStorage(DagsterPostgresStorage):
    """All of Dagster's storage in one database; its configuration is that of Dagster's own."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
        token_provider: PgTokenProvider | None = None,
    ) -> None:
        is_new = postgres_url not in _engines
        super().__init__(postgres_url, should_autocreate_tables and is_new, inst_data, token_provider)
        if is_new:
            _engines[postgres_url] = create_pg_engine(
                postgres_url,
                token_provider,
                isolation_level="AUTOCOMMIT",
                pool_size=HELD,
                max_overflow=-1,
                pool_pre_ping=True,  # a connection whose server has gone is replaced before its use
                pool_recycle=RECYCLED_S,
                connect_args=KEEPALIVE,
            )
        self._event_log_storage = Events(postgres_url, should_autocreate_tables=False, token_provider=token_provider)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = _engines[postgres_url]

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the settings."""
        of_dagster: Any = super().config_type()
        return {**of_dagster, "enabled": dg.Field(bool, default_value=True)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """Return the storage in the configured database: this one, or Dagster's own if it is turned off."""
        kind = cls if config_value["enabled"] else DagsterPostgresStorage
        return kind(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )


class Events(PostgresEventLogStorage):
    """The tables of events."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._batch = _Batch()  # set first: the base constructor may connect
        super().__init__(*args, **options)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events together; of planned ones, if one cannot be stored, none is.

        Dagster then stores them one by one. It hands them over in the order of their assets, so that two batches cannot
        deadlock.
        """
        if not {event.get_dagster_event().event_type for event in events} <= PLANNED:
            super().store_event_batch(events)
            return
        with super()._connect() as connection, self._batch.begun(connection):
            statement = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
            ids = [int(row[0]) for row in connection.execute(statement).fetchall()]
            newest = {}
            for event, event_id in zip(events, ids, strict=True):
                if event.dagster_event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                    self.store_asset_check_event(event, event_id)
                else:
                    newest[event.get_dagster_event().asset_key] = event, event_id
            for event, event_id in newest.values():  # an asset has one row, which its newest event fills
                self._store_asset_event(connection, event, event_id)

    def _connect(self) -> AbstractContextManager[Connection]:
        connection = self._batch.connection
        return super()._connect() if connection is None else nullcontext(connection)


class _Batch(threading.local):
    """The connection of the batch that this thread is storing."""

    connection: Connection | None = None

    @contextmanager
    def begun(self, connection: Connection) -> Iterator[None]:
        """Use a connection for everything that this thread stores, in one transaction."""
        with connection.execution_options(isolation_level="READ COMMITTED").begin():
            self.connection = connection
            try:
                yield
            finally:
                self.connection = None
