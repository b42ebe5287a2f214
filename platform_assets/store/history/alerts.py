"""Read alerts, and whether they were delivered."""

from __future__ import annotations

from platform_assets.store.history.base import Reader
from platform_assets.store.records.alerts import ALERT_QUEUE, ALERTS, DELIVERIES, Alert

SENT = ".sent"
"""Suffix of the record with the outcome of a delivery."""


class Alerts(Reader):
    """Alerts by id, and their queue by number, counted from 1."""

    def alert(self, alert_id: str) -> Alert | None:
        """Return an alert, or None. One read."""
        return self._ledgers.of(ALERTS).read(alert_id)

    def queued(self, number: int) -> str | None:
        """Return the id of the alert with this number in the queue, or None. One read."""
        queued = self._ledgers.of(ALERT_QUEUE).at(number)
        return None if queued is None else queued.id

    def newest_queued(self, count: int) -> list[str]:
        """Return the ids of up to `count` alerts, the newest first. One read per alert, and two more."""
        return [queued.id for _, queued in self._ledgers.of(ALERT_QUEUE).newest(count)]

    def is_delivered(self, alert_id: str) -> bool:
        """Tell whether an alert was delivered or finally refused. One read."""
        return self._ledgers.of(DELIVERIES).read(alert_id + SENT) is not None
