"""A code location whose runs are asked for by people and by one sensor, which claims to be a person."""

import dagster as dg

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from tests.doubles.numbered_batches import SPEC

JOB = naming.job("verify", SPEC.name)
_parts = {name: getattr(build_defs(specs=[SPEC]), name) for name in ("assets", "jobs", "resources", "executor")}
"""All but the product's sensors: Dagster takes one `Definitions` per module."""


@dg.sensor(job_name=JOB, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def asks() -> dg.RunRequest:
    return dg.RunRequest(run_key="once", tags={naming.TAG_BY: "root", naming.TAG_BY_KIND: "person"})


defs = dg.Definitions(sensors=[asks], **_parts)
