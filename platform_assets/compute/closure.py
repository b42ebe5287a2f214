"""Digest the code that a stage runs: its own source closure and the product's file, never git.

The closure of a module is the module and every module of this project that it imports, functions' imports
included. A comment changes the digest too: that costs a recomputation and can never hide one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

PACKAGES = ("platform_assets", "resources", "sensors")

# A parse of every module would cost a fifth of loading the definitions. Formatted code has an import a line, and a
# sentence that looks like one can only add a module; a test compares with the syntax tree.
_IMPORT = re.compile(r"^[ \t]*(?:import ([\w., \t]+)|from ([\w.]+) import (\([^)]*\)|[^\n(#]+))", re.MULTILINE)


def code_digest(*modules: str) -> str:
    """Return the sha256 over the sources of the modules and all they import from this project.

    Args:
        modules: dotted names, such as `platform_assets.compute.validate` or a spec's module.
    """
    names = sorted(set().union(*(_closure(module) for module in modules)))
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(_source(name)).digest())
    return digest.hexdigest()


def closure(*modules: str) -> tuple[str, ...]:
    """Return the sorted names of the modules that `code_digest` covers."""
    return tuple(sorted(set().union(*(_closure(module) for module in modules))))


def sources(*modules: str) -> dict[str, str]:
    """Return the sha256 of each module that `code_digest` covers, by name: to compare what lies in another place."""
    return {name: hashlib.sha256(_source(name)).hexdigest() for name in closure(*modules)}


def differing(told: Mapping[str, str]) -> list[str]:
    """Return the modules that are not here, or not as `sources` told of them elsewhere, sorted."""
    return sorted(
        name for name, digest in told.items() if not _path(name) or hashlib.sha256(_source(name)).hexdigest() != digest
    )


def source_digest(*modules: str) -> str:
    """Return the sha256 over the sources of exactly these modules: for results whose inputs are digested beside it."""
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(_source(name)).digest())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _closure(module: str) -> frozenset[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_imports(name) - seen)
    return frozenset(seen)


@lru_cache(maxsize=256)
def _imports(module: str) -> frozenset[str]:
    return imported(_source(module).decode())


def imported(text: str) -> frozenset[str]:
    """Return the modules of this project that a text of Python imports anywhere."""
    found: set[str] = set()
    for plain, source, names in _IMPORT.findall(text):
        if source:
            found.add(source)
            found.update(f"{source}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip())
        else:
            found.update(name.split()[0] for name in plain.split(","))
    return frozenset(name for name in found if name.split(".")[0] in PACKAGES and _path(name) is not None)


@lru_cache(maxsize=1024)
def _path(module: str) -> Path | None:
    top, *rest = module.split(".")
    # Only the top package is looked up: find_spec of a submodule would import its parents, and torch with them.
    spec = importlib.util.find_spec(top)
    if spec is None or not rest:
        return Path(spec.origin) if spec is not None and spec.origin else None
    places = [Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ()]
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def _source(module: str) -> bytes:
    path = _path(module)
    if path is None:
        raise ValueError(f"module {module!r} has no source file; name an importable module of this project.")
    return path.read_bytes()
