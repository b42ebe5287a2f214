"""Read alerts, whether their episode is over, and to whom they were delivered."""

from __future__ import annotations

from collections.abc import Iterable

from platform_assets.store.history.base import Reader
from platform_assets.store.records.alerts import (
    ALERT_QUEUE,
    ALERTS,
    DELIVERIES,
    ENDED,
    ENDS,
    RECEIVERS,
    Alert,
    Delivered,
    Ended,
    Queued,
)


class Alerts(Reader):
    """Alerts by id, and their queue by number, counted from 1."""

    def alert(self, alert_id: str) -> Alert | None:
        """Return an alert, or None. One read."""
        return self._ledgers.of(ALERTS).read(alert_id)

    def end(self, alert_id: str) -> Ended | None:
        """Return the end of an alert's episode, None while it goes on. One read."""
        return self._ledgers.of(ENDS).read(alert_id + ENDED)

    def queued(self, number: int) -> Queued | None:
        """Return the entry of the queue with this number, or None. One read."""
        return self._ledgers.of(ALERT_QUEUE).at(number)

    def newest_queued(self, count: int) -> list[Queued]:
        """Return up to `count` entries of the queue, the newest first. One read per entry, and two more."""
        return [queued for _, queued in self._ledgers.of(ALERT_QUEUE).newest(count)]

    def delivery(self, queued: Queued, receiver: str) -> Delivered | None:
        """Return the delivery of an entry to a receiver that got or finally refused it, or None. One read."""
        return self._ledgers.of(DELIVERIES).read(queued.delivery(receiver))

    def is_delivered(self, queued: Queued, receivers: Iterable[str] = ()) -> bool:
        """Tell whether each of these receivers got or finally refused an entry; without any, whether one of all did.

        One read per receiver.
        """
        if named := tuple(receivers):
            return all(self.delivery(queued, receiver) is not None for receiver in named)
        return any(self.delivery(queued, receiver) is not None for receiver in RECEIVERS)
