"""Sensors: what watches the assets and asks for runs, one file a concern.

Belongs here: a pure `plan()` that says which runs are wanted and why, and a `build()` that wires it to Dagster, with
a cursor a product. Does not belong here: decisions (`platform_assets.compute`) and work (the runs do it).
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.specs.base import ProductSpec


def build(specs: Iterable[ProductSpec], jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """Return one sensor a concern, for all products.

    Args:
        specs: the products.
        jobs: the code location's jobs; a module with a `VERB` is given those of the products that bear it.
    """
    specs = tuple(specs)
    modules = [importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__)]
    built = []
    for module in modules:
        if hasattr(module, "VERB"):
            names = {naming.job(module.VERB, spec.name) for spec in specs}
            built.append(module.build(specs, [job for job in jobs if job.name in names]))
        elif hasattr(module, "build"):
            built.append(module.build(specs))
    return built
