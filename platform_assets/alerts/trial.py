"""Send a test alert to Alertmanager: `driftline doctor receivers`."""

from __future__ import annotations

from platform_assets.alerts.alertmanager import Alertmanager, Message
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings, variable
from platform_assets.monitoring.alert_kinds import Kind
from platform_assets.store.records.alerts import Alert


def run(settings: Settings) -> int:
    """Print what came of it in a line, and return 1 when nobody got the alert."""
    name = variable("alertmanager")
    if not settings.alertmanager_addresses:
        print(f"No receiver is set, so alerts are recorded only. Set {name}.")
        return 1
    now = clock.wall()
    alert = Alert(
        id=f"test-{now:%Y%m%dT%H%M%S}",
        product="driftline",
        kind=Kind.TEST.recorded,
        text="This is a test of Driftline's alerts. Nothing is wrong.",
        at_utc=now.isoformat(),
        details={},
        severity=Kind.TEST.value.severity,
    )
    delivery = Alertmanager(settings).send(Message(alert=alert, owner=naming.OWNER_DEFAULT))
    is_sent = delivery.outcome == "sent"
    advice = "" if is_sent else f": look at {name}."
    print(f"{'ok' if is_sent else 'FAILED':<7} {Alertmanager.name:<13} {delivery.message}{advice}")
    return int(not is_sent)
