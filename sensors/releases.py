"""Show in Dagster the releases that no run made, such as rollbacks, and raise an alert when a new Bento is needed.

Releases are made by the stage `release` (`platform_assets/serving/release.py`) and by `driftline release`. Decided in
`platform_assets/automation/sensors/releases.py`.
"""

from platform_assets.automation.sensors import releases

SENSOR = releases.watch.declared("releases", every_s=10)
