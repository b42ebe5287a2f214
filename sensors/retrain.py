"""Execute decisions: launch `retrain__PRODUCT` for a cutoff, or raise an alert, once per episode.

Decided by the stage `decision` (`platform_assets/monitoring/policy.py`); keys of an older version are made again
first. Decided in `platform_assets/automation/sensors/retrain.py`.
"""

from platform_assets.automation.sensors import retrain

SENSOR = retrain.watch.declared("retrain", every_s=1, jobs="retrain")
