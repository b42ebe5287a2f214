"""The sensors of this code location, one file each: name, interval, whether it runs, and the jobs that it launches.

What a sensor decides is in `platform_assets/automation/sensors/`, which other projects have too; these files say what
runs here. All of them run until a person stops one in Dagster.
"""

from sensors import (
    alerts,
    freshness,
    held_keys,
    landings,
    materialisations,
    orphaned_pods,
    orphaned_steps,
    pools,
    pulse,
    releases,
    retrain,
    run_failures,
)

DECLARED = (
    alerts.SENSOR,
    freshness.SENSOR,
    held_keys.SENSOR,
    landings.SENSOR,
    materialisations.SENSOR,
    orphaned_pods.SENSOR,
    orphaned_steps.SENSOR,
    pools.SENSOR,
    pulse.SENSOR,
    releases.SENSOR,
    retrain.SENSOR,
    run_failures.SENSOR,
)
