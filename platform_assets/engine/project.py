"""Find the Dagster project that a process runs in, and the modules of its products, without importing any.

`driftline` asks this; Dagster itself loads components. A project is what `dg` takes for one: the nearest
`pyproject.toml` with `[tool.dg.project]`.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_COMPONENT = "ProductComponent"
_FILES = ("defs.yaml", "defs.yml", "component.py")
_AUTOMATIC = re.compile(r"^\s*automation\s*:\s*true\b|\bautomation\s*=\s*True\b", re.MULTILINE | re.IGNORECASE)
_MODULE = re.compile(r"""^\s*module\s*[:=]\s*f?["']?([\w.{}]+)""", re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """A Dagster project.

    Attributes:
        defs_module: the package in which components lie.
        folder: of that package.
        path: what must be on `sys.path` for it to be imported.
    """

    defs_module: str
    folder: Path
    path: Path

    @property
    def is_checkout(self) -> bool:
        """Whether it is Driftline's own, whose products lie in files of their own too."""
        return self.defs_module.startswith("platform_assets.")


def found(folder: Path | None = None) -> Project | None:
    """Return the project of a folder, by default of the current one; None without one."""
    return _found((folder or Path.cwd()).absolute())


@lru_cache(maxsize=8)
def _found(start: Path) -> Project | None:
    for place in (start, *start.parents):
        if (file := place / "pyproject.toml").is_file():
            section = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("dg", {}).get("project")
            if section is None:
                continue
            root = str(section.get("root_module", ""))
            defs = str(section.get("defs_module", f"{root}.defs"))
            for path in (place / "src", place) if root else ():
                if (folder := path.joinpath(*defs.split("."))).is_dir():
                    return Project(defs, folder, path)
            return None  # the nearest one counts
    return None


@dataclass(frozen=True, order=True)
class Component:
    """A product's component.

    Attributes:
        module: that defines the product.
        file: of the component.
        is_automatic: whether its sensors and schedules run before a person starts them.
    """

    module: str
    file: Path
    is_automatic: bool


def components() -> list[Component]:
    """Return the project's components, sorted by module; the modules can be imported afterwards."""
    project = found()
    if project is None:
        return []
    components = []
    for file in sorted(item for name in _FILES for item in project.folder.rglob(name)):
        text = file.read_text(encoding="utf-8", errors="replace")
        if _COMPONENT in text:
            package = ".".join((project.defs_module, *file.parent.relative_to(project.folder).parts))
            named = _MODULE.search(text)
            module = named[1].replace("{__package__}", package) if named else f"{package}.product"
            components.append(Component(module, file, _AUTOMATIC.search(text) is not None))
    if components and str(project.path) not in sys.path:
        sys.path.insert(0, str(project.path))  # before another commit of it that is installed
    return sorted(components)


def component_of(module: str) -> Component | None:
    """Return the component whose product a module defines; None in this checkout, and for `build_defs`."""
    return next((item for item in components() if item.module == module), None)
