"""Dagster instances in memory for tests, made in a quarter of Dagster's time, and one that forgets events."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import dagster as dg

STAMPS = [f"dagster._core.storage.{name}.in_memory.stamp_alembic_rev" for name in ("runs", "event_log")]


@contextmanager
def ephemeral() -> Iterator[dg.DagsterInstance]:
    """Make an instance without the number of its schema, for which Dagster would read ninety files of migrations."""
    with patch(STAMPS[0]), patch(STAMPS[1]):
        made = dg.DagsterInstance.ephemeral()
    with made as instance:
        yield instance


@contextmanager
def forgetful() -> Iterator[dg.DagsterInstance]:
    """Make an instance that keeps runs and forgets their events, which take more CPU than most stages here.

    A run's result holds its events all the same. Tests that read events back use an instance that keeps them.
    """
    with ephemeral() as instance:
        log = instance.event_log_storage
        log.store_event = log.store_event_batch = lambda _: None  # type: ignore[method-assign]
        yield instance
