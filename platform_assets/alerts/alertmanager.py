"""Send alerts to Alertmanager, which groups, silences and routes them by their labels: by mail, chat or a webhook.

An alert is repeated while its episode lasts, each time with an end that lies ahead: one that is not repeated is over
there. Alerts with the same labels are one alert; it lasts until the last of their episodes has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from platform_assets.base import clock
from platform_assets.base.settings import Settings, pairs
from platform_assets.monitoring.alert_kinds import row_of, value
from platform_assets.store.records.alerts import Alert

PATH = "api/v2/alerts"
TIMEOUT_S = 5.0
"""For one answer."""
LASTS = timedelta(minutes=10)
"""How long an alert lasts there unless it is repeated: a daemon that restarts ends none."""
NOTICED = timedelta(minutes=5)
"""How long it lasts there at least: one that is over before its group's `group_wait` is never sent to anybody."""
_RETRIED = (401, 403, 404, 407, 408, 425, 429)
"""Refusals that may be temporary, or end when a setting is corrected; any other 4xx would be repeated forever."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """An alert, or the end of its episode.

    Attributes:
        owner: of the product, by its file.
        ended_at: when the episode ended; None while it goes on.
        notified_at: when Alertmanager got the alert, by the wall clock; None if it did not.
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


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What Alertmanager's API v2 takes of one alert; `ends_at` lies ahead while it goes on."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str
    ends_at: str


class Alertmanager:
    """The addresses in `DRIFTLINE_ALERTMANAGER`. One of them must accept an alert; all of them are repeated to."""

    name = "alertmanager"

    def __init__(self, settings: Settings) -> None:
        self._addresses = settings.alertmanager_addresses
        namespace = {"namespace": settings.namespace} if settings.environment == "cluster" else {}
        self._labels = namespace | dict(pairs(settings.alertmanager_labels))

    def labels(self, message: Message) -> dict[str, str]:
        """Return the labels of an alert: where a rule has the same, those of that rule's."""
        alert, row = message.alert, row_of(message.alert.kind, message.alert.details)
        own = {"alertname": row.name, "severity": alert.severity, "owner": message.owner, "product": alert.product}
        more = {label: value(alert.details, detail) for label, detail in row.labels.items()}
        return {name: text for name, text in {**own, **more, **self._labels}.items() if text}

    def send(self, message: Message) -> Delivery:
        """Begin or end an alert. Raises nothing about the receiver: what is wrong with it is the delivery."""
        now = clock.wall()
        if message.ended_at is None:
            return self._post([self._body([message], now + LASTS)])
        # The rule's alert goes on for 5 minutes and two scrapes. If ours ended first, people could read of an end,
        # and a minute later of a new alert.
        is_rule = row_of(message.alert.kind, message.alert.details).is_rule
        if is_rule or message.notified_at is None or now - message.notified_at < NOTICED:
            return Delivery(outcome="sent", message="it is not repeated any more")
        return self._post([self._body([message], now)])

    def repeat(self, messages: Iterable[Message]) -> Delivery:
        """Say again which alerts go on."""
        same = dict[tuple[tuple[str, str], ...], list[Message]]()
        for message in messages:
            same.setdefault(tuple(sorted(self.labels(message).items())), []).append(message)
        ends_at = clock.wall() + LASTS
        return self._post([self._body(episodes, ends_at) for episodes in same.values()])

    def _body(self, episodes: Sequence[Message], ends_at: datetime) -> Body:
        """Return what Alertmanager takes of the episodes that are one alert, the newest last."""
        newest = episodes[-1].alert
        return Body(
            labels=self.labels(episodes[-1]),
            annotations={
                "summary": newest.text,
                "command": f"driftline status {newest.product}",
                "id": ", ".join(message.id for message in episodes),
            },
            starts_at=min(message.alert.at_utc for message in episodes),
            ends_at=ends_at.isoformat(),
        )

    def _post(self, alerts: Sequence[Body]) -> Delivery:
        deliveries = [post(f"{address.rstrip('/')}/{PATH}", msgspec.json.encode(alerts)) for address in self._addresses]
        best = ("sent", "unreachable", "refused")
        return min(deliveries, key=lambda delivery: best.index(delivery.outcome))


def post(address: str, body: bytes) -> Delivery:
    """POST JSON. Neither results nor logs contain the address, which may be a secret."""
    import httpx

    # At INFO these libraries log the whole address of each request.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        headers = {"Content-Type": "application/json"}
        response = httpx.post(address, content=body, headers=headers, timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as problem:  # OSError: there is no file SSL_CERT_FILE
        # The text of some of these contains the address.
        return Delivery(outcome="unreachable", message=f"receiver: {type(problem).__name__}")
    message = f"receiver answered {response.status_code}"
    if response.is_success:
        return Delivery(outcome="sent", message=message)
    is_final = response.is_client_error and response.status_code not in _RETRIED
    return Delivery(outcome="refused" if is_final else "unreachable", message=message)
