"""Declare the stages of a product: one file per stage, one public `build(spec)`.

A declaration names inputs, maker and what a run shows; `engine/` plans, makes, writes and reports.

Belongs here: what one stage alone knows. Does not belong here: computing (`compute/`), bytes (`makers/`), charts
(`show/`), storing (`storage/`), or heavy steps (`steps/`).
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules() -> tuple[ModuleType, ...]:
    """Return every stage's module, sorted by name."""
    return tuple(importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__))
