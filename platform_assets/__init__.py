"""Keep models fresh: every step from a landed file to an answered prediction is a Dagster asset.

The public names of `driftline` are here too: `from platform_assets import Product`.
"""

from importlib import import_module


def __getattr__(name: str) -> object:
    """Load a public name."""
    driftline = import_module("driftline")  # by its name: a code digest counts what defines a name, not who lists it
    if name not in driftline.NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(driftline, name)
    return value
