"""Fail a run of `verify__PRODUCT` once per episode of a fault, so that a dead feed is red in Dagster's overview.

Which key is held is decided by the stage `drift` (`platform_assets/monitoring/drift.py`). Decided in
`platform_assets/automation/sensors/held_keys.py`.
"""

from platform_assets.automation.sensors import held_keys

SENSOR = held_keys.watch.declared("held_keys", every_s=5, jobs="verify")
