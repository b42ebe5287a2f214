"""Raise alerts: record each once, record the end of its episode, and deliver both to Alertmanager at least once.

An alert's id names its episode, so the same trouble seen again raises no second alert. The record `alerts/{id}` is
written first, then the place in the queue; so is the end, `alerts/{id}.ended`. A receiver that was down gets them
later; one that gets them twice recognises the id.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from platform_assets.alerts.alertmanager import Alertmanager, Delivery, Message
from platform_assets.base import clock
from platform_assets.base.problems import RecordExists
from platform_assets.engine.store_resource import StoreResource
from platform_assets.monitoring.alert_kinds import Alert, row_of
from platform_assets.product.spec import Product
from platform_assets.store.records import alerts as records
from platform_assets.store.records.alerts import ENDED, Delivered, Ended, Queued
from platform_assets.store.records.base import R, RecordKind

QUEUE_READ = 20


class AlertsResource(StoreResource):
    """Alerts of all products."""

    def record(self, product: str, alert: Alert, at: datetime) -> bool:
        """Record an alert at a product's moment unless it is on record, and queue it; return whether it is new.

        Raises:
            LedgerProblem: the alert could not be written; record it again.
        """
        record = records.Alert(
            id=alert.id,
            product=product,
            kind=alert.kind.recorded,
            text=alert.text,
            at_utc=at.isoformat(),
            details=alert.details,
            severity=row_of(alert.kind.recorded, alert.details).severity,
        )
        return self._create(product, records.ALERTS, record, Queued(id=alert.id))

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
        end = Ended(id=alert_id, at_utc=at.isoformat())
        self._create(product, records.ENDS, end, Queued(id=alert_id, is_end=True))
        return True

    def deliver(self, product: Product, queued: Queued, receiver: Alertmanager) -> Delivery:
        """Deliver an entry of a product's queue unless that was done, and record the delivery."""
        history = self.history(product.name)
        alert = history.alert(queued.id)
        if alert is None or history.delivery(queued) is not None:
            return Delivery(outcome="sent", message="was delivered before")
        if not alert.severity:  # it has no end on record, so Alertmanager would be told of it forever
            return Delivery(outcome="sent", message="was raised by an earlier version")
        end = history.end(queued.id) if queued.is_end else None
        sent = history.delivery(Queued(id=queued.id)) if queued.is_end else None
        message = Message(
            alert=alert,
            owner=product.owner,
            ended_at=None if end is None else datetime.fromisoformat(end.at_utc),
            notified_at=datetime.fromisoformat(sent.at_utc) if sent and sent.at_utc else None,
        )
        delivery = receiver.send(message)
        if delivery.outcome != "unreachable":
            self.note(product.name, queued, delivery)
        return delivery

    def note(self, product: str, queued: Queued, delivery: Delivery) -> None:
        """Record a delivery."""
        assert delivery.outcome != "unreachable"
        at_utc = clock.wall().isoformat()
        record = Delivered(id=queued.id, outcome=delivery.outcome, message=delivery.message, at_utc=at_utc)
        with suppress(RecordExists):
            self.ledgers(product).of(records.DELIVERIES).create(queued.delivery, record)

    def _create(self, product: str, kind: RecordKind[R], record: R, queued: Queued) -> bool:
        """Create a record and queue it, each unless that was done; return whether the record is new."""
        writers, history, is_new = self.ledgers(product), self.history(product), True
        try:
            writers.of(kind).create(queued.id + ENDED * queued.is_end, record)
        except RecordExists:
            is_new = False
        # A record that is there and not in the queue: its sensor was killed in between.
        if is_new or not (history.delivery(queued) is not None or queued in history.newest_queued(QUEUE_READ)):
            writers.of(records.ALERT_QUEUE).append(queued)
        return is_new
