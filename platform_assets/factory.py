"""Put every product through every stage: the factory of the code location, and of components.

Belongs here: what is done once for all assets. Does not belong here: products, stages, or the environment; resources
read it when they are first used, so the graph is the same everywhere, but for products whose file is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

import sensors
from platform_assets import jobs, naming, partitions, placeholders, stages
from platform_assets.specs.base import ProductSpec
from resources import defaults
from sensors import freshness_policies

JOBS = {"advance": (naming.DATA, naming.MONITORING), "retrain": (naming.TRAINING, naming.SERVING)}
"""Which systems' assets a job materialises: a range of keys in one run, and one cutoff in another. What watches a
product without a key (a backtest) belongs to neither and has a job of its own."""
LAST = {"retrain": ("cost",)}
"""Stages without a key that end a job all the same, because they tell of what it did."""


def build_defs(
    *, resources: Mapping[str, Any] | None = None, specs: Iterable[ProductSpec] | None = None
) -> dg.Definitions:
    """Return the definitions of all products.

    Args:
        resources: in place of the defaults of the same name; another store is also that of the other defaults.
        specs: in place of the products that `platform_assets.specs` finds.
    """
    if specs is None:
        found, of_each, broken = placeholders.build_each(of_product)
    else:
        found, of_each, broken = (given := list(specs)), [of_product(spec) for spec in given], []
    return dg.Definitions.merge(around(found, of_each, resources or {}), *of_each, *map(placeholders.of, broken))


def around(specs: Iterable[ProductSpec], built: Iterable[dg.Definitions], given: Mapping[str, Any]) -> dg.Definitions:
    """Return what products share: resources, sensors and the executor. `built` is what `of_product` gave of each."""
    return dg.Definitions(
        resources={**defaults(), **given},
        sensors=sensors.build(specs, [job for each in built for job in each.jobs or ()]),
        executor=dg.in_process_executor,
    )


def of_product(spec: ProductSpec) -> dg.Definitions:
    """Return a product's assets, checks, jobs and schedules, without what products share."""
    with partitions.beta_allowed():
        built = [item for module in (*stages.modules(), *jobs.modules()) for item in module.build(spec)]
    assets = [item for item in built if isinstance(item, dg.AssetsDefinition)]
    others = [item for item in built if not isinstance(item, dg.AssetsDefinition)]
    schedules = [item for item in others if isinstance(item, dg.ScheduleDefinition)]
    runnable = [item for item in others if item not in schedules] + [_job(spec, verb, assets) for verb in JOBS]
    return dg.Definitions(assets=freshness_policies.apply(assets, spec), jobs=runnable, schedules=schedules)


def _job(spec: ProductSpec, verb: str, assets: Iterable[dg.AssetsDefinition]) -> Any:
    groups = {naming.group(spec.name, system) for system in JOBS[verb]}
    watch = naming.group(spec.name, naming.MONITORING)
    keys = [
        item.key
        for each in assets
        for item in each.specs
        if (item.group_name in groups and (item.group_name != watch or each.partitions_def is not None))
        or item.tags[naming.TAG_STAGE] in LAST.get(verb, ())
    ]
    return dg.define_asset_job(
        naming.job(verb, spec.name),
        selection=dg.AssetSelection.assets(*keys),
        description=f"{verb.capitalize()} {spec.title}: {' and '.join(JOBS[verb])}.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
