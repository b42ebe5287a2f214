"""Dagster resources: thin layers over settings, clock and storage, and the launchers of steps.

Belongs here: what an asset or a sensor is handed. Does not belong here: products (`platform_assets.specs`) and
anything that computes (`platform_assets.compute`); an import contract keeps both out.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from resources.alerts import AlertsResource
from resources.launchers import launcher
from resources.store import StoreResource


def defaults() -> dict[str, Any]:
    """Return the resources by name; each reads the environment when an asset first asks for it."""
    return {
        "store": StoreResource(),
        "alerts": AlertsResource(),
        "launcher": dg.ResourceDefinition(lambda _: launcher(StoreResource().settings)),
    }
