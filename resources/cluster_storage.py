"""Keep Dagster's runs, events and ticks in PostgreSQL, over connections that stay open.

Dagster's own storage opens a connection for every query, hundreds of them for one run, and lists the database's tables
whenever an instance is made, which every sensor tick does. To open one, server and client hash the password thousands
of times, and the server starts a process: that costs more than the query. The tables are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData
    from dagster_postgres.auth import PgTokenProvider
    from sqlalchemy.engine import Engine

HELD = 4
"""Connections that a process keeps at most; threads beyond them open one for a moment, as Dagster's storage does."""
RECYCLED_S = 300
SILENT_MS = 20_000
"""After so long a server that confirms nothing, such as one on a lost node, counts as gone."""
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": SILENT_MS}
_engines: dict[str, Engine] = {}
"""By the address of a database, whose tables this process has looked for."""


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
            _engines[postgres_url] = _engine(postgres_url, token_provider)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = _engines[postgres_url]

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> ClusterStorage:
        """Return the storage in the configured database."""
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )


def _engine(url: str, token_provider: PgTokenProvider | None) -> Engine:
    """Make a database's engine; a connection whose server has gone is replaced before its use."""
    return create_pg_engine(
        url,
        token_provider,
        isolation_level="AUTOCOMMIT",
        pool_size=HELD,
        max_overflow=-1,
        pool_pre_ping=True,
        pool_recycle=RECYCLED_S,
        connect_args=KEEPALIVE,
    )
