"""Build the definitions of all products, for our code location and for components.

Resources read the environment on first use, so the graph is the same everywhere, except for broken product files
and the last key of a recording that is being replayed (`partitions.keys_of`). What is built here needs nothing of its
code location and sets nothing there: neither resources nor an IO manager nor an executor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import dagster as dg

from platform_assets import jobs, sensors
from platform_assets.automation import freshness_policies, placeholders
from platform_assets.automation.resources import Replacements, Resources, replaced
from platform_assets.base import naming
from platform_assets.data import features, outcomes, raw, validated
from platform_assets.engine import partitions
from platform_assets.engine.outside import Outside
from platform_assets.evaluation import evaluation
from platform_assets.jobs import maintenance
from platform_assets.launch.monthly_budget import MonthlyBudget
from platform_assets.monitoring import decision, drift, performance
from platform_assets.operations import mlflow
from platform_assets.operations.views.table import VIEWS
from platform_assets.prediction_log import predictions
from platform_assets.product.spec import Product
from platform_assets.serving import release, service
from platform_assets.training import checkpoint, onnx

JOBS = {"advance": (naming.DATA, naming.MONITORING), "retrain": (naming.TRAINING, naming.SERVING)}
TITLES = {"advance": "data and monitoring", "retrain": "training and serving"}
"""Systems whose assets a job materialises."""
STAGES = (
    *(raw, validated, features, outcomes, predictions, checkpoint, onnx, evaluation),
    *(service, release, drift, performance, decision),
)
"""From landed files to decisions; each has one public `stages(spec, outside)`."""
OUTSIDE = Outside(views=VIEWS, budget=MonthlyBudget(), tracking=mlflow)


def build_defs(
    *,
    resources: Resources | Replacements | None = None,
    specs: Iterable[Product] | None = None,
    watches: Iterable[Any] | None = None,
    automation: bool | None = None,
) -> dg.Definitions:
    """Return the definitions of this checkout's products, or of others for another Dagster project.

    Args:
        resources: some of `store`, `alerts` and `launcher`, instead of the defaults; another store also becomes the
            store of the others.
        specs: the project's products; None for those found in `platform_assets.products`, whose sensors' names have no
            prefix.
        watches: the sensors, instead of those of `platform_assets.sensors` as their modules declare them.
        automation: whether sensors and schedules run unless a person stops them, or only once a person starts them;
            by default this checkout's run.

    Raises:
        ValueError: a resource is unknown, or a product's file is broken.
    """
    shared = replaced(resources or {})
    prefix, is_automatic = ("", automation is not False) if specs is None else (naming.GUEST, bool(automation))

    def build(spec: Product) -> dg.Definitions:
        return product_definitions(spec, shared, is_automatic=is_automatic)

    if specs is None:
        products, definitions, broken = placeholders.build_all(build)
    else:
        products, broken = list(specs), []
        definitions = list(map(build, products))
    jobs = [job for definition in definitions for job in definition.jobs or ()]
    watching = dg.Definitions(
        sensors=sensors.build(products, jobs, shared, watches, prefix=prefix, is_automatic=is_automatic)
    )
    return dg.Definitions.merge(watching, *definitions, *map(placeholders.placeholder, broken))


def product_definitions(spec: Product, resources: Resources, *, is_automatic: bool = True) -> dg.Definitions:
    """Return one product's assets, checks, jobs and schedules, bound to the resources."""
    outside = replace(OUTSIDE, resources=resources.bound)
    with partitions.beta_allowed():
        items: list[Any] = [
            item for module in STAGES for stage in module.stages(spec, outside) for item in stage.assets()
        ]
        items.append(release.job(spec))  # of a person, who names a digest and no cutoff
        landings = raw.landings(spec)
        items += [item for module in jobs.modules() for item in module.build(spec, resources)]
    checks = [item for item in items if isinstance(item, dg.AssetChecksDefinition)]
    assets = [item for item in items if isinstance(item, dg.AssetsDefinition) and item not in checks]
    operating = [item for item in items if not isinstance(item, dg.AssetsDefinition)]
    assets = freshness_policies.apply(assets, spec)
    maintain = next(job for job in operating if job.name == naming.job(maintenance.VERB, spec.name))
    monitoring = spec.group(naming.MONITORING)
    for verb, systems in JOBS.items():
        groups = {spec.group(system) for system in systems}
        keys = [
            item.key
            for definition in assets
            for item in definition.specs
            if item.group_name in groups and (item.group_name != monitoring or definition.partitions_def is not None)
        ]
        operating.append(
            dg.define_asset_job(
                naming.job(verb, spec.name),
                selection=dg.AssetSelection.assets(*keys),
                description=f"{verb.capitalize()} {spec.title}: {TITLES[verb]}.",
                tags={naming.TAG_PRODUCT: spec.name},
                executor_def=dg.in_process_executor,  # 50 to 90 ms per step; a process per step takes 2 s
            )
        )
    return dg.Definitions(
        assets=[*assets, *landings],
        asset_checks=checks,
        jobs=operating,
        schedules=[maintenance.nightly(spec, maintain, is_running=is_automatic)],
    )
