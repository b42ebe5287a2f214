"""A Dagster instance for tests of what runs store in our tables, and not of what Dagster shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def forgetful() -> Iterator[dg.DagsterInstance]:
    """Make an instance that keeps runs and forgets their events, which take more CPU than most stages here.

    A run's result holds its events all the same. Tests that read events back use an instance that keeps them.
    """
    with dg.DagsterInstance.ephemeral() as instance:
        log = instance.event_log_storage
        log.store_event = log.store_event_batch = lambda _: None  # type: ignore[method-assign]
        yield instance
