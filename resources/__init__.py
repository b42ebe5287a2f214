"""Dagster resources: thin layers over settings, clock and storage, and the launchers of steps.

Belongs here: what an asset or a sensor is handed. Does not belong here: products (`platform_assets.specs`) and
anything that computes (`platform_assets.compute`); an import contract keeps both out.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from resources.alerts import AlertsResource
from resources.launchers import launcher
from resources.reader import TableReader
from resources.store import StoreResource


def defaults(given: object = None) -> dict[str, Any]:
    """Return the resources by name; each reads the environment when an asset first asks for it.

    Args:
        given: a store in place of the environment's; the others are then of its environment.
    """
    store = given if isinstance(given, StoreResource) else StoreResource()
    return {
        "store": store,
        "alerts": AlertsResource(variables=store.variables),
        "launcher": dg.ResourceDefinition(lambda _: launcher(store.settings)),
        "io_manager": TableReader(store),
    }
