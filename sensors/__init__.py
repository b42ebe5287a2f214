"""The sensors of this code location: when each one runs, which jobs it launches, and what it decides.

`where` is the sensor itself, in the module of its name below `platform_assets/sensors/`; other projects have it with
the values of that module.
"""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

from platform_assets.sensors import (
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


class Row(NamedTuple):
    """A sensor: `jobs` is the verb of those that it launches, `status` whether it runs before a person starts it."""

    name: str
    every_s: int
    jobs: str | None
    status: Literal["running", "stopped"]
    decides: str
    where: Any


# The daemon's loop waits 5 s: a shorter interval means in each of its rounds.
TABLE = (
    Row("landings", 1, "advance", "running", "Which keys can be closed or must be advanced again.", landings.watch),
    Row("retrain", 1, "retrain", "running", "When a decided training runs; raises decisions' alerts.", retrain.watch),
    Row("held_keys", 10, "verify", "running", "When a new fault turns Dagster's overview red.", held_keys.watch),
    Row("freshness", 30, None, "running", "Which stages, files and models are late or have changed.", freshness.watch),
    Row("materialisations", 5, None, "running", "Which keys an asset of others has filled.", materialisations.watch),
    Row("releases", 10, None, "running", "Which releases the UI lacks; which need a new Bento.", releases.watch),
    Row("alerts", 5, None, "running", "When Alertmanager is told of an alert, its end, and again.", alerts.watch),
    Row("run_failures", 30, None, "running", "Which failed runs are new; raises their alerts.", run_failures.watch),
    Row("orphaned_steps", 30, None, "running", "Which runs of this machine lost their process.", orphaned_steps.watch),
    Row("orphaned_pods", 30, None, "running", "Which pods of steps outlive their run in vain.", orphaned_pods.watch),
    Row("pools", 30, None, "running", "How many trainings run at once; says why others wait.", pools.watch),
    Row("pulse", 10, None, "running", "Nothing: leaves the time, by which `status` sees a daemon.", pulse.watch),
)
DECLARED = tuple(
    replace(row.where, name=row.name, every_s=row.every_s, jobs=row.jobs, is_running=row.status == "running")
    for row in TABLE
)
