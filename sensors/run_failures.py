"""Record each failed run in its product's ledger, and raise one alert per distinct failure.

Decided in `platform_assets/automation/sensors/run_failures.py`.
"""

from platform_assets.automation.sensors import run_failures

SENSOR = run_failures.watch.declared("run_failures", every_s=10)
