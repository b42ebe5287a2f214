"""Define what a receiver is given, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from platform_assets.store.records.alerts import Alert

TIMEOUT_S = 5.0
"""For one answer of a receiver."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """An alert, or the end of its episode, to one receiver.

    Attributes:
        owner: of the product, by its file.
        ended_at: when the episode ended; None while it goes on.
        notified_at: when the receiver got the alert, by the wall clock; None if it did not.
    """

    alert: Alert
    owner: str
    ended_at: datetime | None = None
    notified_at: datetime | None = None

    @property
    def id(self) -> str:
        """The id of the episode among those of all products."""
        return f"{self.alert.product}/{self.alert.id}"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What came of sending a message.

    Attributes:
        outcome: `sent` now or before, `refused` (final), or `unreachable` (to be retried).
        message: one clause, without the receiver's address.
    """

    outcome: Literal["sent", "refused", "unreachable"]
    message: str


class Receiver(Protocol):
    """Where alerts are sent. `name` is one of `store.records.alerts.RECEIVERS`."""

    name: str

    def send(self, message: Message) -> Delivery:
        """Send a message. Raises nothing about the receiver: what is wrong with it is the delivery."""
        ...
