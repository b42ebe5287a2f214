"""The nightly job cleans a product's tables; with `dry_run` it only reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

NAME = batches.SPEC.name


@pytest.mark.costly
def test_the_job_deletes_the_files_counted_by_its_dry_run(
    settings: Settings, run: Callable[..., Any], instance: dg.DagsterInstance
) -> None:
    batches.land_all(settings.root, "0001", "0003")
    for key in ("0001", "0002", "0003"):
        run(key)
    store = StoreResource(variables=settings.to_environment())
    defs = build_defs(specs=[batches.SPEC], resources={"store": store})

    def clean(**config: Any) -> dict[str, Any]:
        result = defs.resolve_job_def(f"maintain__{NAME}").execute_in_process(
            instance=instance, run_config={"ops": {f"tidy__{NAME}": {"config": config}}}
        )
        (event,) = (event for event in result.all_node_events if event.is_successful_output)
        return {name: entry.value for name, entry in event.step_output_data.metadata.items()}

    before = sum(path.is_file() for path in Path(settings.root).rglob("*"))
    counts = clean(dry_run=True, retention_hours=0)
    assert clean()["log_files"] == 0
    assert counts["log_files"] > 20
    assert sum(path.is_file() for path in Path(settings.root).rglob("*")) == before
    assert clean(retention_hours=0) == {**counts, "is_dry_run": False}
    assert run("0001", "0003").success


def test_the_schedule_runs_every_night() -> None:
    schedule = build_defs(specs=[batches.SPEC], automation=True).resolve_schedule_def(f"maintain__{NAME}")
    assert (schedule.cron_schedule, schedule.default_status) == ("17 3 * * *", dg.DefaultScheduleStatus.RUNNING)
