"""Fixtures for the stage tests: a store, landed batches, and a function that runs a range of keys as Dagster does."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store.tables import TableStore
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
            resources={"driftline_store": StoreResource(variables=dict(variables))},
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
            raise_on_error=raise_on_error,
        )

    return execute


@pytest.fixture
def run(settings: Settings, run_on: Run) -> Run:
    def execute(first: str, last: str | None = None, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return run_on(settings.to_environment(), first, last, raise_on_error=raise_on_error)

    return execute


INPUTS = ("raw_", "validated_", "quarantine_", "features", "outcomes")
"""How the stages that a training reads are named."""
Advanced = Callable[..., TableStore]


@pytest.fixture(scope="session")
def advanced_store(instance: dg.DagsterInstance, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the store of the numbered batches after an advance to a key; made once, for tests to copy."""

    @cache
    def store(last: str, *, inputs_only: bool) -> Path:
        folder = tmp_path_factory.mktemp(f"advanced_{last}")
        settings = Settings(root=str(folder / "store"), state=folder / "state")
        clock.move(settings, batches.SPEC.name, NOW)
        batches.land_all(settings.root, "0001", last)
        defs = build_defs(specs=[batches.SPEC], resources={"store": StoreResource(variables=settings.to_environment())})
        keys = defs.resolve_asset_graph().get_all_asset_keys()
        selected = [key for key in keys if key.path[-1].startswith(INPUTS)] if inputs_only else None
        defs.resolve_job_def(naming.job("advance", batches.SPEC.name)).execute_in_process(
            instance=instance,
            asset_selection=selected,
            tags={"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": last},
        )
        return Path(settings.root)

    return store


@pytest.fixture
def advance_to(settings: Settings, tables: TableStore, advanced_store: Callable[..., Path]) -> Advanced:
    """Put the numbered batches, landed and advanced to a key, into this test's store."""

    def execute(last: str, *, inputs_only: bool = False) -> TableStore:
        shutil.copytree(advanced_store(last, inputs_only=inputs_only), settings.root, dirs_exist_ok=True)
        return tables

    return execute
