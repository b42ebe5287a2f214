"""Raise alerts: record each once, record the end of its episode, and deliver both to each receiver at least once.

An alert's id names its episode, so the same trouble seen again raises no second alert. The record `alerts/{id}` is
written first, then the place in the queue; so is the end, `alerts/{id}.ended`. A receiver that was down gets them
later; one that gets them twice recognises the id.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime

import dagster as dg

from platform_assets.automation.receivers.api import Delivery, Message, Receiver
from platform_assets.automation.receivers.kinds import kind_of
from platform_assets.base import clock
from platform_assets.base.problems import RecordExists
from platform_assets.base.settings import Settings
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import sha256
from platform_assets.store.history.alerts import Alerts
from platform_assets.store.records.alerts import (
    ALERT_QUEUE,
    ALERTS,
    DELIVERIES,
    ENDED,
    ENDS,
    Alert,
    Delivered,
    Ended,
    Queued,
)
from platform_assets.store.writing import LedgerWriters

QUEUE_READ = 20
MAX_ID = 120
"""Longest id, in characters."""


class AlertsResource(dg.ConfigurableResource[None]):
    """Alerts of all products.

    Attributes:
        variables: the environment to read; the process's own when None.
    """

    variables: dict[str, str] | None = None

    @property
    def settings(self) -> Settings:
        """The settings, read now."""
        return Settings.from_environment(self.variables)

    def history(self, product: str) -> Alerts:
        """The reader of a product's alerts."""
        return Alerts(self.settings.root, product)

    def record(
        self, product: str, alert_id: str, *, kind: str, text: str, at: datetime, details: object = None
    ) -> bool:
        """Record an alert unless it is on record, and queue it; return whether it is new.

        Args:
            alert_id: from `episode_id`; the same for the same episode.
            kind: one of `receivers.kinds.KINDS`.
            text: one or two sentences for a person.
            at: the product's moment.
            details: JSON values by name.

        Raises:
            LedgerProblem: the alert could not be written; record it again.
        """
        severity, details = kind_of(kind, details).severity, details or {}
        at_utc = at.isoformat()
        alert = Alert(
            id=alert_id, product=product, kind=kind, text=text, at_utc=at_utc, details=details, severity=severity
        )
        is_new = True
        try:
            LedgerWriters(self.settings.root, product).of(ALERTS).create(alert_id, alert)
        except RecordExists:
            is_new = False
        return self._queue(product, Queued(id=alert_id), is_new=is_new)

    def end(self, product: str, alert_id: str, at: datetime) -> bool:
        """Record that the episode of an alert is over, and queue that; return whether there is such an alert.

        Raises:
            LedgerProblem: the end could not be written; record it again.
        """
        alert = self.history(product).alert(alert_id)
        if alert is None:
            return False
        if not alert.severity:
            return True
        is_new = True
        try:
            end = Ended(id=alert_id, at_utc=at.isoformat())
            LedgerWriters(self.settings.root, product).of(ENDS).create(alert_id + ENDED, end)
        except RecordExists:
            is_new = False
        self._queue(product, Queued(id=alert_id, is_end=True), is_new=is_new)
        return True

    def deliver(self, product: Product, queued: Queued, receiver: Receiver) -> Delivery:
        """Deliver an entry of a product's queue to a receiver unless that was done, and record the delivery."""
        history = self.history(product.name)
        alert = history.alert(queued.id)
        if alert is None or history.delivery(queued, receiver.name) is not None:
            return Delivery(outcome="sent", message="was delivered before")
        if not alert.severity and receiver.name != "webhook":
            return Delivery(outcome="sent", message="was raised by an earlier version, for the webhook alone")
        end = history.end(queued.id) if queued.is_end else None
        sent = history.delivery(Queued(id=queued.id), receiver.name) if queued.is_end else None
        message = Message(
            alert=alert,
            owner=product.owner,
            ended_at=None if end is None else datetime.fromisoformat(end.at_utc),
            notified_at=datetime.fromisoformat(sent.at_utc) if sent and sent.at_utc else None,
        )
        delivery = receiver.send(message)
        if delivery.outcome != "unreachable":
            self.note(product.name, queued, receiver, delivery)
        return delivery

    def note(self, product: str, queued: Queued, receiver: Receiver, delivery: Delivery) -> None:
        """Record a delivery."""
        assert delivery.outcome != "unreachable"
        at_utc = clock.wall().isoformat()
        record = Delivered(id=queued.id, outcome=delivery.outcome, message=delivery.message, at_utc=at_utc)
        with suppress(RecordExists):
            LedgerWriters(self.settings.root, product).of(DELIVERIES).create(queued.delivery(receiver.name), record)

    def _queue(self, product: str, queued: Queued, *, is_new: bool) -> bool:
        """Queue a record unless that was done, and return whether it is new."""
        history = self.history(product)
        # Otherwise its sensor was killed before it queued the record.
        if is_new or not (history.is_delivered(queued) or queued in history.newest_queued(QUEUE_READ)):
            LedgerWriters(self.settings.root, product).of(ALERT_QUEUE).append(queued)
        return is_new


def episode_id(*parts: str) -> str:
    """Return an alert's id from the parts that name its episode: `fault-2013-03-09-weather-frozen_columns`.

    Characters that no ledger accepts become underscores. An id that would be too long, or whose characters were
    replaced, ends with a digest of the whole.
    """
    plain = "-".join(parts)
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", plain).lstrip("_.-")
    if clean == plain and len(clean) <= MAX_ID:
        return clean
    return f"{clean[: MAX_ID - 9] or 'alert'}-{sha256(plain.encode())[:8]}"
