"""The history of one product: what was released, decided, found faulty, asked, told and paid."""

from __future__ import annotations

from platform_assets.history.alerts import Alerts
from platform_assets.history.decisions import Decisions
from platform_assets.history.faults import Faults
from platform_assets.history.money import Money
from platform_assets.history.releases import Releases
from platform_assets.history.requests import Requests


class History(Releases, Decisions, Faults, Requests, Alerts, Money):
    """Everything that is on record of a product; each method says how many requests it costs."""
