"""Define every product that is found, and what was scaffolded beside them: the code location that Dagster loads.

Belongs here: the one `defs`. Does not belong here: how they are made (`platform_assets.factory`).
"""

from pathlib import Path

import dagster as dg

from platform_assets import defs as folder
from platform_assets.factory import JOBS, LAST, build_defs

__all__ = ["JOBS", "LAST", "build_defs", "defs"]


def _scaffolded() -> list[dg.Definitions]:
    """Return what lies in `platform_assets/defs/`; Dagster is not asked to look where nothing does."""
    place = Path(folder.__path__[0])
    if all(path.name.startswith("__") for path in place.iterdir()):
        return []
    return [dg.ComponentTree.from_module(folder, project_root=place.parents[1]).build_defs()]


defs = dg.Definitions.merge(build_defs(), *_scaffolded())
