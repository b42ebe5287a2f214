"""Sensors: watch the assets and request runs, one module per sensor.

Each module has the `watch()` that `ticks.Sensor` declares to Dagster, and begins with what it decides. How it decides
is a `plan()` in the room of its subject; the work is done by the runs.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from platform_assets.automation.resources import Resources
from platform_assets.product.spec import Product


def build(
    specs: Iterable[Product],
    jobs: Sequence[Any],
    resources: Resources,
    watches: Iterable[Any] | None = None,
    *,
    prefix: str = "",
    is_automatic: bool = True,
) -> list[dg.SensorDefinition]:
    """Return one sensor per concern, for all products.

    Args:
        jobs: the code location's jobs; a sensor with a verb gets those of its products that have this verb.
        watches: the sensors as the code location declares them; None: as their modules do.
        prefix: of their names in Dagster, where others have sensors too.
        is_automatic: whether those that are declared to run do so before a person starts them.
    """
    specs = tuple(specs)
    if watches is None:
        modules = [importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__)]
        watches = [module.watch for module in modules if hasattr(module, "watch")]
    return [watch.build(specs, jobs, resources, prefix=prefix, is_automatic=is_automatic) for watch in watches]
