"""Read the history of one product: releases, decisions, faults, requests, alerts and costs."""

from __future__ import annotations

from platform_assets.store.history.alerts import Alerts
from platform_assets.store.history.attendance import Attended
from platform_assets.store.history.decisions import Decisions
from platform_assets.store.history.faults import Faults
from platform_assets.store.history.materialisations import Materialisations
from platform_assets.store.history.money import Money
from platform_assets.store.history.owners import Owners
from platform_assets.store.history.rebuilds import Rebuilds
from platform_assets.store.history.releases import Releases
from platform_assets.store.history.requests import Requests
from platform_assets.store.history.trainings import Trainings
from platform_assets.store.history.versions import Versions


class History(
    Releases,
    Decisions,
    Faults,
    Requests,
    Rebuilds,
    Alerts,
    Attended,
    Money,
    Trainings,
    Versions,
    Materialisations,
    Owners,
):
    """Everything on record about a product; each method states its cost in requests."""
