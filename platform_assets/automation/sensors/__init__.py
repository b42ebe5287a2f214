"""Sensors: watch the assets and request runs, one module per concern.

Most modules have a pure `plan()`, which decides which runs are needed and why, and a `watch()`, which `ticks.Sensor`
declares to Dagster. Decisions are made in `platform_assets.compute`, and the work is done by the runs.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from platform_assets.specs.base import ProductSpec


def build(specs: Iterable[ProductSpec], jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """Return one sensor per concern, for all products.

    Args:
        jobs: the code location's jobs; a sensor with a verb gets those of its products that have this verb.
    """
    specs = tuple(specs)
    modules = [importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__)]
    return [module.watch.build(specs, jobs) for module in modules if hasattr(module, "watch")]
