"""Read the history of one product: releases, decisions, faults, requests, alerts and costs."""

from __future__ import annotations

from platform_assets.history.alerts import Alerts
from platform_assets.history.attendance import Attended
from platform_assets.history.decisions import Decisions
from platform_assets.history.faults import Faults
from platform_assets.history.money import Money
from platform_assets.history.rebuilds import Rebuilds
from platform_assets.history.releases import Releases
from platform_assets.history.requests import Requests
from platform_assets.history.trainings import Trainings
from platform_assets.history.versions import Versions


class History(Releases, Decisions, Faults, Requests, Rebuilds, Alerts, Attended, Money, Trainings, Versions):
    """Everything on record about a product; each method states its cost in requests."""
