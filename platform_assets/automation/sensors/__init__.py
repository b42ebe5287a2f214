"""Sensors: watch the assets and request runs, one module per concern.

Most modules have a pure `plan()`, which decides which runs are needed and why, and a `watch()`, which `ticks.Sensor`
declares to Dagster. What follows from a key is decided in `monitoring.policy`, and the work is done by the runs.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from platform_assets.product.spec import Product


def declared() -> list[Any]:
    """Return each sensor as its module declares it."""
    modules = [importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__)]
    return [module.watch for module in modules if hasattr(module, "watch")]


def build(
    specs: Iterable[Product], jobs: Sequence[Any], watches: Iterable[Any] | None = None
) -> list[dg.SensorDefinition]:
    """Return one sensor per concern, for all products.

    Args:
        jobs: the code location's jobs; a sensor with a verb gets those of its products that have this verb.
        watches: the sensors as the code location declares them; None: as their modules do.
    """
    specs = tuple(specs)
    return [watch.build(specs, jobs) for watch in (declared() if watches is None else watches)]
