"""Raise alerts: record each once, and deliver it to a webhook at least once.

An alert's id names its episode, so the same trouble seen again raises no second alert. The record `alerts/{id}` is
written first, then the place in the queue. A receiver that was down gets the alert later; one that gets it twice
recognises the id. The webhook's address is a secret: it appears in no record, log line, message or `repr`.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import dagster as dg

from platform_assets.base.problems import RecordExists
from platform_assets.base.settings import Settings
from platform_assets.store.artifacts import sha256
from platform_assets.store.history.alerts import SENT, Alerts
from platform_assets.store.records.alerts import ALERT_QUEUE, ALERTS, DELIVERIES, Alert, Delivered, Queued
from platform_assets.store.writing import LedgerWriters

TIMEOUT_S = 5.0
QUEUE_READ = 20
MAX_ID = 120
"""Longest id, in characters."""

_RETRIED = (408, 425, 429)
"""Refusals that may be temporary; any other 4xx would be repeated forever."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Result of delivering the next alert in a product's queue.

    Attributes:
        outcome: `sent` now or before, `refused` (final), `unreachable` (to be retried), `recorded` without a webhook,
            or `empty` when the queue has no more alerts.
        alert_id: of the alert; empty for `empty`.
        message: one clause, without the webhook's address.
    """

    outcome: Literal["sent", "refused", "unreachable", "recorded", "empty"]
    alert_id: str = ""
    message: str = ""


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

    def record(
        self, product: str, alert_id: str, *, kind: str, text: str, at: datetime, details: object = None
    ) -> bool:
        """Record an alert unless it is on record, and queue it; return whether it is new.

        Args:
            alert_id: from `episode_id`; the same for the same episode.
            kind: for receivers that filter; docs/operate.md lists the kinds.
            text: one or two sentences for a person.
            at: the product's moment.
            details: JSON values by name.

        Raises:
            LedgerProblem: the alert could not be written; record it again.
        """
        ledgers, history = LedgerWriters(self.settings.root, product), Alerts(self.settings.root, product)
        alert = Alert(id=alert_id, product=product, kind=kind, text=text, at_utc=at.isoformat(), details=details or {})
        is_new = True
        try:
            ledgers.of(ALERTS).create(alert_id, alert)
        except RecordExists:
            is_new = False
            # Otherwise its sensor was killed before it queued the alert.
            if history.is_delivered(alert_id) or alert_id in history.newest_queued(QUEUE_READ):
                return False
        ledgers.of(ALERT_QUEUE).append(Queued(id=alert_id))
        return is_new

    def deliver(self, product: str, number: int) -> Delivery:
        """Deliver the alert at a place in the queue unless that was done, and record the delivery.

        Args:
            number: its place in the queue, from 1.
        """
        settings = self.settings
        history = Alerts(settings.root, product)
        alert_id = history.queued(number)
        if alert_id is None:
            return Delivery(outcome="empty")
        alert = history.alert(alert_id)
        if alert is None or history.is_delivered(alert_id):
            return Delivery(outcome="sent", alert_id=alert_id, message="was delivered before")
        if settings.alert_webhook is None:
            return Delivery(
                outcome="recorded", alert_id=alert_id, message="recorded only: DRIFTLINE_ALERT_WEBHOOK is not set"
            )
        delivery = _post(settings.alert_webhook.get_secret_value(), alert)
        if delivery.outcome == "sent" or delivery.outcome == "refused":
            with suppress(RecordExists):
                sent = Delivered(id=alert_id, outcome=delivery.outcome, message=delivery.message)
                LedgerWriters(settings.root, product).of(DELIVERIES).create(alert_id + SENT, sent)
        return delivery


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


def _post(webhook: str, alert: Alert) -> Delivery:
    """POST an alert as JSON; the result does not contain the address."""
    import httpx

    # At INFO these libraries log the whole address of each request.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        response = httpx.post(
            webhook,
            json=alert.document(),
            headers={"Idempotency-Key": f"{alert.product}/{alert.id}"},
            timeout=TIMEOUT_S,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        # The text of some of these contains the address.
        return Delivery(outcome="unreachable", alert_id=alert.id, message=f"receiver: {type(problem).__name__}")
    status = response.status_code
    message = f"receiver answered {status}"
    if response.is_success:
        return Delivery(outcome="sent", alert_id=alert.id, message=message)
    is_final = response.is_client_error and status not in _RETRIED
    return Delivery(outcome="refused" if is_final else "unreachable", alert_id=alert.id, message=message)
