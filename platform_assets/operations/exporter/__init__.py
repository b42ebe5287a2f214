"""Metrics for Prometheus of any Dagster instance and of its products: `driftline exporter`.

Each part reads in a thread of its own: one that hangs or fails leaves the others as they are, and is said by
`driftline_exporter_part_up`. Counters begin at zero when the exporter starts and count what happens from then on.
Gauges say when the newest event was, rather than how long ago, so that none depends on the interval of scrapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from platform_assets.base.settings import Settings
from platform_assets.operations.exporter import code_locations
from platform_assets.operations.exporter.instance import OfInstance
from platform_assets.operations.exporter.parts import Collect, Parts
from platform_assets.operations.exporter.products import OfProducts

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from platform_assets.engine.product_files import Broken
    from platform_assets.product.spec import Product

ONCE_S = 60.0
"""How long `--once` waits for a part: longer than Dagster tries to reach a database, so that it says what is wrong."""
PRODUCTS_EVERY_S = 60.0
"""A product's records are read no more often: a scrape in between gets the numbers of the last reading."""


def metrics(
    settings: Settings, products: Sequence[Product | Broken], home: Path, patience_s: float | None = None
) -> CollectorRegistry:
    """Return what is served; reads nothing.

    Args:
        home: the folder with `dagster.yaml`, whose database is read.
        patience_s: how long a scrape waits for a part that is slow; None for the least that scrapes allow.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    parts: dict[str, Collect] = {"dagster": OfInstance(partial(opened, home))}
    if settings.dagster_url is not None:
        parts["code_locations"] = partial(code_locations.metrics, settings.dagster_url)
    if products:
        parts["products"] = OfProducts(settings, products)
    registry.register(Parts(parts, {"products": PRODUCTS_EVERY_S}, patience_s))
    return registry


def opened(home: Path) -> DagsterInstance:
    """Open the instance of a folder with `dagster.yaml`."""
    from dagster import DagsterInstance

    if not (home / "dagster.yaml").exists():
        raise ValueError(f"there is no dagster.yaml in {home}; set DAGSTER_HOME to the folder that has it.")
    return DagsterInstance.from_config(str(home))
