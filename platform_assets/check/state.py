"""Execute a function's module once more, so that the function has none of the state that earlier calls left there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def without(function: Function) -> Function:
    """Return the function of a new copy of its module; itself where the module does not hold it by its name.

    The copy is not registered, so nothing else sees it. Costs what the module costs to import; what it imports is not
    executed again.
    """
    name, module = getattr(function, "__name__", ""), sys.modules.get(getattr(function, "__module__", ""))
    spec = None if module is None else module.__spec__
    if getattr(module, name, None) is not function or spec is None or spec.loader is None:
        return function
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    result: Function = getattr(copy, name)
    return result
