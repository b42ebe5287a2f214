"""Define alerts, their queue, their delivery, and failed runs."""

from __future__ import annotations

from typing import Literal

from platform_assets.base import naming
from platform_assets.store.records.base import Record, RecordKind

DELIVERED = ".alertmanager"
"""Suffix of the record that an alert was delivered."""
ENDED = ".ended"
"""Suffix of the record that an alert's episode is over; in the name of a delivery also of that of the end."""
Severity = Literal["page", "ticket"]


class Alert(Record, frozen=True, kw_only=True):
    """An alert, sent once per episode.

    `details` are JSON values by name that differ per kind. Without a severity, an earlier version raised it, which
    recorded no ends.
    """

    id: str
    product: str
    kind: str
    text: str
    at_utc: str
    details: object
    severity: Severity | Literal[""] = ""


class Ended(Record, frozen=True, kw_only=True):
    """The end of an alert's episode, stored next to the alert."""

    id: str
    at_utc: str


class Delivered(Record, frozen=True, kw_only=True):
    """The outcome of a delivery to Alertmanager, stored next to the alert, with the moment of the wall clock."""

    id: str
    outcome: Literal["sent", "refused"]
    message: str
    at_utc: str = ""


class Queued(Record, frozen=True, kw_only=True):
    """An entry of the alert queue: an alert, or the end of its episode."""

    id: str
    is_end: bool = False

    @property
    def delivery(self) -> str:
        """The name of the record of its delivery."""
        return f"{self.id}{DELIVERED}{ENDED if self.is_end else ''}"


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
ENDS = RecordKind(naming.ALERTS, Ended)
DELIVERIES = RecordKind(naming.ALERTS, Delivered)
ALERT_QUEUE = RecordKind(naming.ALERT_QUEUE, Queued)
FAILURES = RecordKind(naming.FAILURES, Failure)
