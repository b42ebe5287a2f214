"""Assets of stages, as `automation.factory` builds them."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from platform_assets.automation.factory import OUTSIDE
from platform_assets.base.settings import Settings
from platform_assets.engine import partitions
from platform_assets.engine.outside import Outside
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.spec import Product

Run = Callable[..., dg.ExecuteInProcessResult]


def built(spec: Product, *modules: Any, outside: Outside = OUTSIDE) -> list[dg.AssetsDefinition]:
    """Return the assets of the stages that modules define."""
    with partitions.beta_allowed():
        return [item for module in modules for stage in module.stages(spec, outside) for item in stage.assets()]


def running(settings: Settings, instance: dg.DagsterInstance, spec: Product, *modules: Any) -> Run:
    """Return a function that runs these stages over a range of keys."""
    defs = dg.Definitions(
        assets=built(spec, *modules),
        resources={"driftline_store": StoreResource(variables=settings.to_environment())},
        executor=dg.in_process_executor,
    )
    job = defs.resolve_implicit_global_asset_job_def()

    def run(first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
        return job.execute_in_process(instance=instance, tags=tags)

    return run
