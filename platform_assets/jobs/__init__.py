"""Build each product's jobs that materialise no asset: one file per subject, each with one public `build(spec)`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules() -> tuple[ModuleType, ...]:
    """Return all modules of jobs, sorted by name."""
    return tuple(importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__))
