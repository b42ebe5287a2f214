"""Driftline's Dagster resources: thin layers over settings, clock and storage, and the launchers of steps.

Each reads the environment when it is first used. Store and launcher are bound to our own assets, checks and jobs, under
keys that nobody else has, so a code location needs none for them and keeps its own. Dagster binds nothing to a sensor:
sensors get the store and the alerts when they are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypedDict

import dagster as dg

from platform_assets.alerts.resource import AlertsResource
from platform_assets.base import naming
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch import launchers
from platform_assets.launch.launchers import StepLauncher

RUN_IMAGE = "dagster/image"
"""Tag of a run in a pod: its image, which is the code server's. A host's product lies in that."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the assets, checks, jobs and sensors of products share.

    Attributes:
        store: tables, artifacts, ledgers and the clock.
        alerts: raises and delivers alerts, for sensors.
        launcher: runs steps; a `StepLauncher`, or a resource that makes one of `naming.STORE`.
    """

    store: StoreResource
    alerts: AlertsResource
    launcher: Any

    @cached_property
    def bound(self) -> dict[str, dg.ResourceDefinition]:
        """Those that assets, checks and jobs are bound to: the same objects each time, or Dagster sees a conflict."""
        launcher = self.launcher
        if not isinstance(launcher, dg.ResourceDefinition):
            launcher = dg.ResourceDefinition.hardcoded_resource(launcher)
        return {naming.STORE: self.store.get_resource_definition(), naming.LAUNCHER: launcher}


class Replacements(TypedDict, total=False):
    """Some of `Resources`, in place of the defaults."""

    store: StoreResource
    alerts: AlertsResource
    launcher: Any


# Dagster refuses two objects under one key, and the whole location with them.
@lru_cache(maxsize=1)
def defaults() -> Resources:
    """Return the resources of a process, the same for all its products."""
    return Resources(store=StoreResource(), alerts=AlertsResource(), launcher=launcher())


def replaced(resources: Resources | Replacements) -> Resources:
    """Return the resources with some in place of the defaults; another store also becomes the alerts'.

    Raises:
        ValueError: a name is none of `store`, `alerts` and `launcher`.
    """
    if isinstance(resources, Resources):
        return resources
    names = {"store", "alerts", "launcher"}
    if unknown := sorted(resources.keys() - names):
        raise ValueError(f"resources are named {', '.join(unknown)}; expected some of {', '.join(sorted(names))}.")
    if not resources:
        return defaults()
    store = resources.get("store", defaults().store)
    alerts = AlertsResource(variables=store.variables)
    return Resources(**{"store": store, "alerts": alerts, "launcher": defaults().launcher, **resources})


def launcher(kinds: Mapping[str, str] = launchers.KINDS) -> dg.ResourceDefinition:
    """Return what runs steps: on Kubernetes in the run's own image, unless `DRIFTLINE_TRAINER_IMAGE` names another.

    Args:
        kinds: the class of each value of `DRIFTLINE_LAUNCHER`.
    """

    def make(context: dg.InitResourceContext) -> StepLauncher:
        store: StoreResource = getattr(context.resources, naming.STORE)
        image = context.run.tags.get(RUN_IMAGE) if context.run else None
        settings = store.settings
        return launchers.launcher(settings if settings.trainer_image else settings.replace(trainer_image=image), kinds)

    return dg.ResourceDefinition(make, required_resource_keys={naming.STORE})
