"""Note what the assets that are sources of a product have materialised, so that `landings` finds its keys.

Without such a source it does nothing. Decided in `platform_assets/automation/sensors/materialisations.py`.
"""

from platform_assets.automation.sensors import materialisations

SENSOR = materialisations.watch.declared("materialisations", every_s=5)
