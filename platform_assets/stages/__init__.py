"""Wire pure functions to Dagster assets: one file a stage, one public `build(spec)`.

An asset body reads, makes one pure call, writes and reports.

Belongs here: what makes an asset of a pure function. Does not belong here: computing (`compute/`), storing
(`storage/`), or heavy steps (`steps/`).
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules() -> tuple[ModuleType, ...]:
    """Return every stage's module, sorted by name."""
    return tuple(importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__))
