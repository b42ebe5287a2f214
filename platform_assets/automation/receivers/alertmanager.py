"""Send alerts to Alertmanager, which groups, silences and routes them by their labels.

An alert is repeated while its episode lasts, each time with an end that lies ahead: one that is not repeated is over
there. Alerts with the same labels are one alert; it lasts until the last of their episodes has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from platform_assets.automation.receivers import http
from platform_assets.automation.receivers.api import Delivery, Message
from platform_assets.automation.receivers.kinds import kind_of, value
from platform_assets.base import clock
from platform_assets.base.settings import Settings, pairs

PATH = "api/v2/alerts"
LASTS = timedelta(minutes=10)
"""How long an alert lasts there unless it is repeated: a daemon that restarts ends none."""
NOTICED = timedelta(minutes=5)
"""How long it lasts there at least: one that is over before its group's `group_wait` is never sent to anybody."""


class Alertmanager:
    """The addresses in `DRIFTLINE_ALERTMANAGER`. One of them must accept an alert; all of them are repeated to."""

    name = "alertmanager"

    def __init__(self, settings: Settings) -> None:
        self._addresses = settings.alertmanager_addresses
        namespace = {"namespace": settings.namespace} if settings.environment == "cluster" else {}
        self._labels = namespace | dict(pairs(settings.alertmanager_labels))

    def labels(self, message: Message) -> dict[str, str]:
        """Return the labels of an alert: where a rule has the same, those of that rule's."""
        alert, kind = message.alert, kind_of(message.alert.kind, message.alert.details)
        own = {"alertname": kind.name, "severity": alert.severity, "owner": message.owner, "product": alert.product}
        more = {label: value(alert.details, detail) for label, detail in kind.labels.items()}
        return {name: text for name, text in {**own, **more, **self._labels}.items() if text}

    def send(self, message: Message) -> Delivery:
        """Begin or end an alert."""
        now = clock.wall()
        if message.ended_at is None:
            return self._post([self._document([message], now + LASTS)])
        # The rule's alert goes on for 5 minutes and two scrapes. If ours ended first, people could read of an end,
        # and a minute later of a new alert.
        is_rule = kind_of(message.alert.kind, message.alert.details).is_rule
        if is_rule or message.notified_at is None or now - message.notified_at < NOTICED:
            return Delivery(outcome="sent", message="it is not repeated any more")
        return self._post([self._document([message], now)])

    def repeat(self, messages: Iterable[Message]) -> Delivery:
        """Say again which alerts go on."""
        same = dict[tuple[tuple[str, str], ...], list[Message]]()
        for message in messages:
            same.setdefault(tuple(sorted(self.labels(message).items())), []).append(message)
        ends_at = clock.wall() + LASTS
        return self._post([self._document(episodes, ends_at) for episodes in same.values()])

    def _document(self, episodes: Sequence[Message], ends_at: datetime) -> Mapping[str, Any]:
        """Return what Alertmanager takes of the episodes that are one alert, the newest last."""
        newest = episodes[-1].alert
        annotations = {
            "summary": newest.text,
            "command": f"driftline status {newest.product}",
            "id": ", ".join(message.id for message in episodes),
        }
        starts_at = min(message.alert.at_utc for message in episodes)
        times = {"startsAt": starts_at, "endsAt": ends_at.isoformat()}
        return {"labels": self.labels(episodes[-1]), "annotations": annotations, **times}

    def _post(self, alerts: Sequence[Mapping[str, Any]]) -> Delivery:
        deliveries = [http.post(f"{address.rstrip('/')}/{PATH}", alerts, {}) for address in self._addresses]
        best = ("sent", "unreachable", "refused")
        return min(deliveries, key=lambda delivery: best.index(delivery.outcome))
