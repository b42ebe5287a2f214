"""Close keys: launch `advance__PRODUCT` from the oldest key with something new to the newest that can be closed.

A key waits for its files (`Source.arrives`), until its deadline, and on a cluster for the answers of its services.
Decided in `platform_assets/automation/sensors/landings.py`.
"""

from platform_assets.automation.sensors import landings

SENSOR = landings.watch.declared("landings", every_s=1, jobs="advance")
