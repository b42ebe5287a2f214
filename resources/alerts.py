"""The alerts: recorded once per episode, and sent to Alertmanager at least once.

Class `AlertsResource` (`platform_assets/alerts/resource.py`), with the variables of the resource `store`. One of them,
`DRIFTLINE_ALERTMANAGER`, names the receiver; without it alerts are on record only.
"""

from platform_assets.alerts.resource import AlertsResource

ALERTS = AlertsResource()
