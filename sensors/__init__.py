"""Sensors: what watches the assets and asks for runs, one file a concern.

Belongs here: a pure `plan()` that says which runs are wanted and why, and a `watch()` that `ticks.Sensor` declares to
Dagster, with a cursor a product. Does not belong here: decisions (`platform_assets.compute`) and work (the runs do it).
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from platform_assets.specs.base import ProductSpec


def build(specs: Iterable[ProductSpec], jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """Return one sensor a concern, for all products.

    Args:
        specs: the products.
        jobs: the code location's jobs; a sensor with a verb is given those of the products that bear it.
    """
    specs = tuple(specs)
    modules = [importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__)]
    return [module.watch.build(specs, jobs) for module in modules if hasattr(module, "watch")]
