"""Dagster resources: thin layers over settings, clock and storage, and the launchers of steps.

Each reads the environment when an asset first uses it. The others require the resource `store`, so replacing the store,
in a code location or for one run, replaces it for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from platform_assets.automation.alerting import AlertsResource
from platform_assets.engine.store_resource import StoreResource
from platform_assets.engine.table_reader import TableReader
from platform_assets.launch import launchers

NEEDS = {"store"}
Resources = dict[str, StoreResource | dg.ResourceDefinition]


def defaults() -> Resources:
    """Return the resources by name."""
    return {"store": StoreResource(), "alerts": alerts(), "launcher": launcher(), "io_manager": tables()}


def alerts() -> dg.ResourceDefinition:
    """Return what raises and delivers alerts."""
    return dg.ResourceDefinition(
        lambda context: AlertsResource(variables=context.resources.store.variables), required_resource_keys=NEEDS
    )


def launcher(kinds: Mapping[str, str] = launchers.KINDS) -> dg.ResourceDefinition:
    """Return what runs steps; `kinds` names the class of each value of `DRIFTLINE_LAUNCHER`."""
    return dg.ResourceDefinition(
        lambda context: launchers.launcher(context.resources.store.settings, kinds), required_resource_keys=NEEDS
    )


def tables() -> dg.IOManagerDefinition:
    """Return what reads an asset's rows in a notebook."""
    return dg.IOManagerDefinition(lambda context: TableReader(context.resources.store), required_resource_keys=NEEDS)
