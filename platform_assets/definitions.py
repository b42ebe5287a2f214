"""Define all products, and the components in `platform_assets/defs/`: the code location that Dagster loads.

`resources/` and `sensors/` say what runs here; other projects take the defaults of `build_defs`.
"""

import gc
from pathlib import Path

import dagster as dg

import resources
import sensors
from platform_assets import defs as folder
from platform_assets.automation.factory import JOBS, build_defs
from platform_assets.base import logs, structs

__all__ = ["JOBS", "build_defs", "defs"]


logs.install()


def _scaffolded() -> list[dg.Definitions]:
    """Return the definitions in `platform_assets/defs/`, which Dagster loads only if there are any.

    Products of components are noted by name, so that `build_defs` takes them with the others.
    """
    location = Path(folder.__path__[0])
    if all(path.name.startswith("__") for path in location.iterdir()):
        return []
    return [dg.ComponentTree.from_module(folder, project_root=location.parents[1]).build_defs()]


_mine = _scaffolded()
defs = dg.Definitions.merge(
    build_defs(resources=resources.DECLARED, watches=sensors.DECLARED),
    dg.Definitions(executor=dg.in_process_executor),
    *_mine,
)
structs.prepare("platform_assets")
gc.freeze()  # all of it stays as long as the process; the collector looked at it again and again, last at the exit
