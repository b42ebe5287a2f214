"""Runs of a product's job over a range of keys, as Dagster does them, and what they show."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.spec import Product

Advance = Callable[..., dg.ExecuteInProcessResult]
ANY = object()


def advancing(settings: Settings, instance: dg.DagsterInstance, spec: Product, *stages: str) -> Advance:
    """Return a function that materialises stages for a range of keys."""
    defs = build_defs(specs=[spec], resources={"store": StoreResource(variables=settings.to_environment())})
    job = defs.resolve_job_def(naming.job("advance", spec.name))

    def run(first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([spec.name, stage]) for stage in stages],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
        )

    return run


def metadata_of(result: dg.ExecuteInProcessResult, stage: str, key: Any = ANY) -> dict[str, Any]:
    for event in result.get_asset_materialization_events():
        shown = event.step_materialization_data.materialization
        if shown.asset_key.path[-1] == stage and key in (ANY, shown.partition):
            return {name: entry.value for name, entry in shown.metadata.items()}
    raise AssertionError(f"{stage} of {key} was not materialised")
