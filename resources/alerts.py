"""The alerts: recorded once per episode, and delivered to each receiver at least once.

Class `AlertsResource` (`platform_assets/automation/alerting.py`), with the variables of the resource `store`; they name
the receivers, and without any alerts are on record only.
"""

from platform_assets.automation.alerting import AlertsResource

ALERTS = AlertsResource()
