"""Stop pods of steps whose run is over, after a while in which another run may take them over.

Otherwise an accelerator would be paid for until its deadline. Works where steps run as pods. Decided in
`platform_assets/automation/sensors/orphaned_pods.py`.
"""

from platform_assets.automation.sensors import orphaned_pods

SENSOR = orphaned_pods.watch.declared("orphaned_pods", every_s=10)
