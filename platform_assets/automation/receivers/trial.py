"""Send a test alert to each receiver: `driftline doctor receivers`."""

from __future__ import annotations

from platform_assets.automation.receivers import configured
from platform_assets.automation.receivers.api import Message
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings, variable
from platform_assets.store.records.alerts import Alert

FIELDS = {"alertmanager": "alertmanager", "webhook": "alert_webhook", "mail": "mail_server"}
"""The setting with the address, by receiver."""


def run(settings: Settings) -> int:
    """Print a line per receiver, and return 1 when one did not get the alert."""
    receivers = configured(settings)
    if not receivers:
        print(
            f"No receiver is set, so alerts are recorded only. Set one of {', '.join(map(variable, FIELDS.values()))}."
        )
        return 1
    now = clock.wall()
    text = "This is a test of Driftline's alerts. Nothing is wrong."
    alert = Alert(
        id=f"test-{now:%Y%m%dT%H%M%S}",
        product="driftline",
        kind="test",
        text=text,
        at_utc=now.isoformat(),
        details={},
        severity="ticket",
    )
    outcomes = [
        (receiver.name, receiver.send(Message(alert=alert, owner=naming.OWNER_DEFAULT))) for receiver in receivers
    ]
    for name, delivery in outcomes:
        is_sent = delivery.outcome == "sent"
        advice = "" if is_sent else f": look at {variable(FIELDS[name])}."
        print(f"{'ok' if is_sent else 'FAILED':<7} {name:<13} {delivery.message}{advice}")
    return int(any(delivery.outcome != "sent" for _, delivery in outcomes))
