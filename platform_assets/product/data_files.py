"""Read a file that lies next to a product's file: its content counts as the product's code, and travels with it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from platform_assets.base.problems import Problem

READER = "data_file"
_OURS = "platform_assets"


class DataFileProblem(Problem, ValueError):
    """A data file that is missing, or a call of `data_file` whose file no digest could name."""


@dataclass(frozen=True)
class Reading:
    """A data file that a module has asked for.

    Attributes:
        module: its name.
        code: its members; another import of the same file has others.
        name: of the data file, next to the module's file.
        sha256: at that moment.
    """

    module: str
    code: dict[str, Any]
    name: str
    sha256: str


_READINGS: dict[str, Reading] = {}
"""The newest reading of each data file in this process, by its path."""


def data_file(name: str) -> Path:
    """Return the path of a file next to the product's file that calls this.

    Its content counts in the code digest of every stage whose function or value comes from it.

    Args:
        name: written out as text in the call, such as `"lead.txt"` or `"tables/lead.csv"`.

    Raises:
        DataFileProblem: there is no such file in the folder of the calling file, or the call does not name it.
    """
    caller = sys._getframe(1).f_globals
    module, file = str(caller.get("__name__")), caller.get("__file__")
    if file is None:
        raise DataFileProblem(f"{READER}({name!r}) is called outside of a file; call it in a product's file.")
    path = locate(Path(file).parent, name)
    if name not in _names_in_source(Path(file).read_bytes()):
        raise DataFileProblem(
            f"{file} reads {name!r} by a call that does not name it; expected {READER}({name!r}), with {READER} "
            "imported from platform_assets.product.spec, because digests follow the text of the call."
        )
    _READINGS[str(path)] = Reading(module, caller, name, sha256(path))
    return path


def locate(folder: Path, name: object) -> Path:
    """Return the path of a data file, without links.

    Raises:
        DataFileProblem: it is not a file in the folder.
    """
    parts = Path(name).parts if isinstance(name, str) else ()
    if not parts or Path(*parts).is_absolute() or any(part.startswith((".", "__pycache__")) for part in parts):
        raise DataFileProblem(
            f"{READER}({name!r}): expected the name of a file in {folder} or below, without dots in front."
        )
    folder = folder.resolve()
    path = folder.joinpath(*parts).resolve()
    if not path.is_relative_to(folder):
        raise DataFileProblem(f"{READER}({name!r}) leads to {path}; expected a file in {folder} or below.")
    if not path.is_file():
        raise DataFileProblem(f"{READER}({name!r}): there is no file {path}; put it there, or fix the name.")
    return path


def sha256(path: Path) -> str:
    """Return the sha256 of a data file as it is now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reading(path: str) -> Reading | None:
    """Return the reading of a path, or None if it is not a data file's."""
    return _READINGS.get(path)


def changed(modules: Iterable[str]) -> list[str]:
    """Return the paths of data files that differ from what one of these modules was last given, sorted."""
    current = {name: vars(sys.modules[name]) for name in modules if name in sys.modules}
    readings = [(path, item) for path, item in [*_READINGS.items()] if current.get(item.module) is item.code]
    return sorted(path for path, item in readings if not Path(path).is_file() or sha256(Path(path)) != item.sha256)


def names_in(nodes: Iterable[ast.AST], aliases: frozenset[str]) -> frozenset[str]:
    """Return the names of the data files that code reads.

    Args:
        aliases: the names of `data_file` in this code; see `aliases_in`.

    Raises:
        DataFileProblem: `data_file` is used in another way than called with a text.
    """
    names, called = set[str](), set[int]()
    if not aliases:
        return frozenset()
    for item in (item for node in nodes for item in ast.walk(node)):
        if isinstance(item, ast.Call) and isinstance(item.func, ast.Name) and item.func.id in aliases:
            values = [*item.args, *(keyword.value for keyword in item.keywords if keyword.arg == "name")]
            match values:
                case [ast.Constant(value=str(name))]:
                    names.add(name)
                    called.add(id(item.func))
    for item in (item for node in nodes for item in ast.walk(node)):
        if isinstance(item, ast.Name) and item.id in aliases and id(item) not in called:
            raise DataFileProblem(
                f'line {item.lineno} uses {item.id} otherwise than {READER}("lead.txt"); write the name of the file '
                "out in each call, because digests follow the text of the call."
            )
    return frozenset(names)


def aliases_in(tree: ast.AST) -> frozenset[str]:
    """Return the names under which a file imports `data_file`."""
    return frozenset(
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _OURS
        for alias in node.names
        if alias.name == READER
    )


@lru_cache(maxsize=64)
def _names_in_source(source: bytes) -> frozenset[str]:
    tree = ast.parse(source)
    return names_in([tree], aliases_in(tree))
