"""Keep Dagster's event log in SQLite, a range of keys in one transaction instead of one for every key.

Belongs here: the local instance's event log, named in `deploy/dagster/dagster.yaml`. Does not belong here: the
cluster's, which is PostgreSQL.

A run over 59 days records some 1,700 planned and made materialisations. Dagster's own SQLite log opens, commits and
closes two databases for each: nine tenths of such a run. Dagster hands over events in batches when
`DAGSTER_EVENT_BATCH_SIZE` is set; here a batch is one transaction a database. Without it nothing differs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import StringSource
from dagster._core.storage.event_log import SqliteEventLogStorage  # dagster.yaml names it by this path too
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME

if TYPE_CHECKING:
    from dagster import EventLogEntry
    from dagster._serdes import ConfigurableClassData
    from sqlalchemy.engine import Connection


class LocalEventLog(SqliteEventLogStorage):
    """Dagster's SQLite event log, at its usual place and with its usual files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._held = threading.local()
        super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()  # type: ignore[assignment]  # a batch takes it again for every event

    @classmethod
    def config_type(cls) -> Any:
        return {"dagster_home": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LocalEventLog:
        return cls(str(Path(config_value["dagster_home"]) / "history" / "runs"), inst_data)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction a database: all of them, or none when it fails."""
        with self._db_lock, ExitStack() as stack:
            shards = {INDEX_SHARD_NAME, *(event.run_id for event in events)}
            self._held.by_shard = {shard: stack.enter_context(self._connect(shard)) for shard in shards}
            try:
                super().store_event_batch(events)
            finally:
                self._held.by_shard = {}

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        held = getattr(self._held, "by_shard", {}).get(shard)
        if held is not None:
            yield held
        else:
            with super()._connect(shard) as connection:
                yield connection
