"""Fail runs of this machine whose process is gone, so that the sensors launch them again.

After a SIGKILL nothing else would, and they would stay STARTED. Decided in
`platform_assets/automation/sensors/orphaned_steps.py`.
"""

from platform_assets.automation.sensors import orphaned_steps

SENSOR = orphaned_steps.watch.declared("orphaned_steps", every_s=10)
