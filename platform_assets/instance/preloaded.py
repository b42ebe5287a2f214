"""What a run's process has imported before it is copied: Dagster, the libraries of tables, and this package.

Never a product, `resources`, `sensors` or the definitions: these follow what a person edits and what has been announced
since, so each run loads them. A file of the package that has changed since is noticed: records hold the digests of
files on the disk, and a copy with older code would be wrong data without a word.

A copy of a process that has imported Polars and deltalake works. After one use of them it hangs, because their threads
are not copied, so nothing here may use them while it is imported.
"""

import importlib
import pkgutil
import sys
import time
from pathlib import Path

_BEGAN_NS = time.time_ns()

LIBRARIES = (
    "deltalake",
    "matplotlib.backends.backend_svg",  # charts are SVG
    "matplotlib.figure",
    "obstore.store",
    "pandera.backends.polars.builtin_checks",
    "pandera.backends.polars.container",
    "pandera.polars",
    "polars",
    "upath.implementations.local",
)
PACKAGES = ("data", "evaluation", "jobs", "monitoring", "sensors")
"""Of ours, with all their modules: what runs load of the others follows from these."""


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def changed() -> str | None:
    """Return a file of this package that is another one than was imported; None where all are the same."""
    return next((path for path, stamp in _STAMPS.items() if stamp[0] > _BEGAN_NS or _stamp(path) != stamp), None)


for _name in (*LIBRARIES, "platform_assets.automation.factory", "platform_assets.instance.local_storage"):
    importlib.import_module(_name)
for _name in PACKAGES:
    _package = importlib.import_module(f"platform_assets.{_name}")
    for _module in pkgutil.walk_packages(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)
_STAMPS = {
    path: _stamp(path)
    for name, module in sys.modules.items()
    if name.startswith("platform_assets") and (path := getattr(module, "__file__", None))
}
