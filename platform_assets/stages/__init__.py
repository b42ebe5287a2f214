"""Declare the stages of a product: one file per stage, each with one public `build(spec)`.

A declaration names inputs, maker and report; `engine/` plans, computes, writes and reports. Other packages do the
work: `compute/` computes, `makers/` make bytes, `show/` draws, `storage/` stores, `steps/` run heavy work.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules() -> tuple[ModuleType, ...]:
    """Return all stage modules, sorted by name."""
    return tuple(importlib.import_module(f"{__name__}.{item.name}") for item in pkgutil.iter_modules(__path__))
