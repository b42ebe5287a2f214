"""Build the definitions of all products, for our code location and for components.

Resources read the environment on first use, so the graph is the same everywhere, except for broken product files
and the last key of a recording that is being replayed (`partitions.keys_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from platform_assets.automation import jobs, placeholders, sensors
from platform_assets.automation.resources import defaults
from platform_assets.automation.sensors import freshness_policies
from platform_assets.base import naming
from platform_assets.data import features, outcomes, raw, validated
from platform_assets.engine import partitions
from platform_assets.engine.outside import Outside
from platform_assets.evaluation import evaluation
from platform_assets.launch.monthly_budget import MonthlyBudget
from platform_assets.monitoring import decision, drift, performance
from platform_assets.operations import mlflow
from platform_assets.operations.views.table import VIEWS
from platform_assets.prediction_log import predictions
from platform_assets.product.spec import Product
from platform_assets.serving import release, service
from platform_assets.training import checkpoint, onnx

JOBS = {"advance": (naming.DATA, naming.MONITORING), "retrain": (naming.TRAINING, naming.SERVING)}
"""Systems whose assets a job materialises."""
STAGES = (
    raw,
    validated,
    features,
    outcomes,
    predictions,
    checkpoint,
    onnx,
    evaluation,
    service,
    release,
    drift,
    performance,
    decision,
)
"""From landed files to decisions; each has one public `build(spec, outside)`."""
OUTSIDE = Outside(views=VIEWS, budget=MonthlyBudget(), tracking=mlflow)


def build_defs(
    *,
    resources: Mapping[str, Any] | None = None,
    specs: Iterable[Product] | None = None,
    watches: Iterable[Any] | None = None,
) -> dg.Definitions:
    """Return the definitions of all products.

    Args:
        resources: override defaults of the same name; another store also becomes the store of the other defaults.
        specs: instead of the products found in `platform_assets.products`.
        watches: the sensors, instead of those of `automation.sensors` as their modules declare them.
    """
    if specs is None:
        products, definitions, broken = placeholders.build_all(product_definitions)
    else:
        products, broken = list(specs), []
        definitions = list(map(product_definitions, products))
    shared = shared_definitions(products, definitions, resources or {}, watches)
    return dg.Definitions.merge(shared, *definitions, *map(placeholders.placeholder, broken))


def shared_definitions(
    specs: Iterable[Product],
    definitions: Iterable[dg.Definitions],
    resources: Mapping[str, Any],
    watches: Iterable[Any] | None = None,
) -> dg.Definitions:
    """Return what all products share: resources, sensors and the executor."""
    built = sensors.build(specs, [job for definition in definitions for job in definition.jobs or ()], watches)
    return dg.Definitions(resources={**defaults(), **resources}, sensors=built, executor=dg.in_process_executor)


def product_definitions(spec: Product) -> dg.Definitions:
    """Return one product's assets, checks, jobs and schedules."""
    with partitions.beta_allowed():
        items = [item for module in STAGES for item in module.build(spec, OUTSIDE)]
        items += [item for module in jobs.modules() for item in module.build(spec)]
    checks = [item for item in items if isinstance(item, dg.AssetChecksDefinition)]
    assets = [item for item in items if isinstance(item, dg.AssetsDefinition) and item not in checks]
    schedules = [item for item in items if isinstance(item, dg.ScheduleDefinition)]
    runnable = [item for item in items if not isinstance(item, dg.AssetsDefinition | dg.ScheduleDefinition)]
    runnable += [_job(spec, verb, assets) for verb in JOBS]
    return dg.Definitions(
        assets=freshness_policies.apply(assets, spec), asset_checks=checks, jobs=runnable, schedules=schedules
    )


def _job(spec: Product, verb: str, assets: Iterable[dg.AssetsDefinition]) -> Any:
    groups = {naming.group(spec.name, system) for system in JOBS[verb]}
    monitoring = naming.group(spec.name, naming.MONITORING)
    keys = [
        item.key
        for definition in assets
        for item in definition.specs
        if item.group_name in groups and (item.group_name != monitoring or definition.partitions_def is not None)
    ]
    return dg.define_asset_job(
        naming.job(verb, spec.name),
        selection=dg.AssetSelection.assets(*keys),
        description=f"{verb.capitalize()} {spec.title}: {' and '.join(JOBS[verb])}.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
