"""Dagster resources: thin layers over settings, clock and storage, and the launchers of steps.

An import contract keeps products (`platform_assets.specs`) and computation (`platform_assets.compute`) out.
"""

from __future__ import annotations

import dagster as dg

from resources.alerts import AlertsResource
from resources.launchers import StepLauncher, launcher
from resources.reader import TableReader
from resources.store import StoreResource


def defaults() -> dict[str, StoreResource | dg.ResourceDefinition]:
    """Return the resources by name; each reads the environment when an asset first uses it.

    The others require the resource `store`, so replacing the store, in a code location or for one run, replaces it for
    all of them.
    """
    needs = {"store"}
    return {
        "store": StoreResource(),
        "alerts": dg.ResourceDefinition(_alerts, required_resource_keys=needs),
        "launcher": dg.ResourceDefinition(_launcher, required_resource_keys=needs),
        "io_manager": dg.IOManagerDefinition(_io_manager, required_resource_keys=needs),
    }


def _alerts(context: dg.InitResourceContext) -> AlertsResource:
    return AlertsResource(variables=context.resources.store.variables)


def _launcher(context: dg.InitResourceContext) -> StepLauncher:
    return launcher(context.resources.store.settings)


def _io_manager(context: dg.InitResourceContext) -> TableReader:
    return TableReader(context.resources.store)
