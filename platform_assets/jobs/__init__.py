"""Build each product's jobs that materialise no asset: one file per subject, each with one `build(spec, resources)`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import dagster as dg

from platform_assets.automation.resources import Resources
from platform_assets.base import naming
from platform_assets.product.spec import Product


def modules() -> tuple[ModuleType, ...]:
    """Return all modules of jobs, sorted by name."""
    return tuple(importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__))


def job_of(op: dg.OpDefinition, spec: Product, resources: Resources, verb: str, description: str) -> dg.JobDefinition:
    """Return a product's job that executes one op in one process."""

    @dg.job(
        name=naming.job(verb, spec.name),
        description=description,
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
        resource_defs=resources.bound,
    )
    def job() -> None:
        op()

    return job
