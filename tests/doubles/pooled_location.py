"""A code location for Dagster's daemon: each run holds a slot in a pool of two while its real step works.

A sensor requests all runs at once. The pool belongs to a profile that exists only in this location.
"""

import os
from dataclasses import replace
from pathlib import Path

import dagster as dg

from platform_assets.automation.resources import defaults
from platform_assets.base import naming
from platform_assets.launch.launchers import StepLauncher
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.product.spec import Training
from platform_assets.sensors import orphaned_steps, pools
from tests.doubles import recorded

RUNS = ("one", "two", "three", "four")
PLACE = "pooled/run"
"""The tag that names a run's folder."""
FOLDERS = "POOLED_FOLDERS"
SIZE = StepProfile(name="two_at_once", cores=1, memory_gb=2, at_once=2, usd_per_hour=0, priced_on="2026-11-01")
POOL = naming.pool(SIZE.name)

# Only Dagster's own processes import this module.
PROFILES[SIZE.name] = SIZE
SPEC = replace(recorded.SPEC, training=Training(profile=SIZE.name))
_sensors = [pools.watch.build([SPEC]), orphaned_steps.watch.build([SPEC])]


@dg.asset(pool=POOL)
def holds(
    context: dg.AssetExecutionContext, driftline_launcher: dg.ResourceParam[StepLauncher]
) -> dg.MaterializeResult:
    extras = {"folder": str(Path(os.environ[FOLDERS]) / context.run.tags[PLACE]), "ends": ["stay"]}
    driftline_launcher.run(context=context, module="tests.doubles.step", extras=extras, profile=SIZE)
    return dg.MaterializeResult()


job = dg.define_asset_job(naming.job("retrain", SPEC.name), selection=[holds], executor_def=dg.in_process_executor)


@dg.sensor(job=job, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def asks(context: dg.SensorEvaluationContext) -> list[dg.RunRequest]:
    return [dg.RunRequest(run_key=name, tags={PLACE: name}) for name in RUNS]


defs = dg.Definitions(assets=[holds], jobs=[job], sensors=[asks, *_sensors], resources=defaults().bound)
