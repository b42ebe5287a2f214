"""The resources of this code location, one file each: its class with fields, and where each value comes from.

Assets, checks and jobs are bound to store and launcher under `driftline_store` and `driftline_launcher`; sensors get
store and alerts when they are built.
"""

from platform_assets.automation.resources import Resources
from resources.alerts import ALERTS
from resources.launcher import LAUNCHER
from resources.store import STORE

DECLARED = Resources(store=STORE, alerts=ALERTS, launcher=LAUNCHER)
