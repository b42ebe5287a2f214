"""Set the size of each pool from its profile, and log to queued runs why they wait.

How many trainings run at once is `at_once` of the profile (`platform_assets/launch/profiles.py`). Decided in
`platform_assets/automation/sensors/pools.py`.
"""

from platform_assets.automation.sensors import pools

SENSOR = pools.watch.declared("pools", every_s=10)
