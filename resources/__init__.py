"""The resources of this code location, one file each: its class with fields, and where each value comes from."""

from resources.alerts import ALERTS
from resources.launcher import LAUNCHER
from resources.store import STORE
from resources.tables import TABLES

DECLARED = {"store": STORE, "alerts": ALERTS, "launcher": LAUNCHER, "io_manager": TABLES}
