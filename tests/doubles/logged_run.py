"""Advance and retrain the numbered batches with real steps: `python -m tests.doubles.logged_run`.

The log goes where a run's goes; the output is the id of the run that trained.
"""

import sys
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.instance import home
from platform_assets.launch.local import SubprocessLauncher
from tests.doubles import numbered_batches as batches
from tests.doubles.trained_batches import SPEC

LAST, CUTOFF = "0020", "0018"


def main() -> None:
    settings = Settings.from_environment()
    clock.move(settings, SPEC.name, datetime(2024, 1, 3, tzinfo=UTC))
    batches.land_all(settings.root, "0001", LAST)
    resources = {
        "store": StoreResource(variables=settings.to_environment()),
        "launcher": SubprocessLauncher(settings),
    }
    defs = build_defs(specs=[SPEC], resources=resources)
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:

        def run(verb: str, **more: Any) -> str:
            job = defs.resolve_job_def(naming.job(verb, SPEC.name))
            return job.execute_in_process(instance=instance, **more).run_id

        run("advance", tags={"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": LAST})
        sys.stdout.write(run("retrain", partition_key=CUTOFF) + "\n")


if __name__ == "__main__":
    main()
