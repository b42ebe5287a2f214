"""Fixtures for the stage tests: a store, landed batches, and a function that runs a range of keys as Dagster does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg
import pytest

from platform_assets import clock
from platform_assets.definitions import build_defs
from platform_assets.settings import Settings
from platform_assets.storage.tables import TableStore
from resources.store import StoreResource
from tests.doubles import instances
from tests.doubles import numbered_batches as batches

Run = Callable[..., dg.ExecuteInProcessResult]
NOW = datetime(2024, 1, 3, tzinfo=UTC)
"""Time of the numbered batches' clock: after all of them."""


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, batches.SPEC.name)


@pytest.fixture(scope="session")
def instance() -> Iterator[dg.DagsterInstance]:
    """One instance for all tests: creating one costs more than most runs here, and no test reads another's events."""
    with instances.forgetful() as forgetful:
        yield forgetful


@pytest.fixture(scope="session")
def run_on(instance: dg.DagsterInstance) -> Run:
    """Run job `advance__numbered_batches` for a range of keys on the store named by the variables."""
    job = build_defs(specs=[batches.SPEC]).resolve_job_def("advance__numbered_batches")

    def execute(
        variables: Mapping[str, str], first: str, last: str | None = None, *, raise_on_error: bool = True
    ) -> dg.ExecuteInProcessResult:
        settings = Settings.from_environment(variables)
        if not (settings.state / "clock" / batches.SPEC.name).exists():
            clock.move(settings, batches.SPEC.name, NOW)
        return job.execute_in_process(
            instance=instance,
            resources={"store": StoreResource(variables=dict(variables))},
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
            raise_on_error=raise_on_error,
        )

    return execute


@pytest.fixture
def run(settings: Settings, run_on: Run) -> Run:
    """Run the job for a range of keys on this test's store."""

    def execute(first: str, last: str | None = None, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return run_on(settings.to_environment(), first, last, raise_on_error=raise_on_error)

    return execute
