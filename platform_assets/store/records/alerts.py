"""Define alerts, their queue, their delivery, and failed runs."""

from __future__ import annotations

from typing import Literal

from platform_assets.base import naming
from platform_assets.store.records.base import Record, RecordKind


class Alert(Record, frozen=True, kw_only=True):
    """An alert, sent once per episode; also the body of the webhook.

    `details` are JSON values by name that differ per kind; nothing here reads them.
    """

    id: str
    product: str
    kind: str
    text: str
    at_utc: str
    details: object


class Delivered(Record, frozen=True, kw_only=True):
    """The outcome of an alert's delivery, stored next to the alert; `message` is the delivery's message."""

    id: str
    outcome: Literal["sent", "refused"]
    message: str


class Queued(Record, frozen=True, kw_only=True):
    """An entry of the alert queue."""

    id: str


class Failure(Record, frozen=True, kw_only=True):
    """A failed run; `first` and `last` are its keys, `step` the first step that failed."""

    job: str
    run_id: str
    first: str | None
    last: str | None
    step: str | None
    error: str
    attempt: str | None
    sensor: str | None
    at_utc: str


ALERTS = RecordKind(naming.ALERTS, Alert)
DELIVERIES = RecordKind(naming.ALERTS, Delivered)
ALERT_QUEUE = RecordKind(naming.ALERT_QUEUE, Queued)
FAILURES = RecordKind(naming.FAILURES, Failure)
