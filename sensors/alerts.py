"""Deliver recorded alerts to each receiver, each product's in order and at least once, with growing pauses.

Without a receiver alerts are recorded only. Decided in `platform_assets/automation/sensors/alerts.py`.
"""

from platform_assets.automation.sensors import alerts

SENSOR = alerts.watch.declared("alerts", every_s=5)
