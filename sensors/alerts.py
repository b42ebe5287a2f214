"""Deliver recorded alerts to the webhook, each product's in order and at least once, with growing pauses.

Of `DRIFTLINE_ALERT_WEBHOOK`; without one alerts are recorded and shown in `driftline status`. Decided in
`platform_assets/automation/sensors/alerts.py`.
"""

from platform_assets.automation.sensors import alerts

SENSOR = alerts.watch.declared("alerts", every_s=5)
