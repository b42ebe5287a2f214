"""The alerts: recorded once per episode, and delivered to a webhook at least once.

Class `AlertsResource` (`platform_assets/automation/alerting.py`), with the variables of the resource `store`:
`DRIFTLINE_ALERT_WEBHOOK` is the address, a secret; without it alerts are on record only.
"""

from platform_assets.automation.alerting import AlertsResource

ALERTS = AlertsResource()
