"""Digest modules by their syntax trees: what a module runs, and every module of ours that it imports.

Comments, layout, docstrings and the annotations of functions do not count; annotations in classes do, for dataclasses
are made of them. No name is followed inside a module: all of it counts.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from platform_assets.digests import cache

PACKAGES = ("platform_assets", "resources", "sensors")
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
SKIPPED = {
    ast.FunctionDef: ("returns", "type_comment"),
    ast.AsyncFunctionDef: ("returns", "type_comment"),
    ast.arg: ("annotation", "type_comment"),
    ast.Constant: ("kind",),
}
"""Members of nodes that run nothing."""


def digests(*modules: str) -> dict[str, str]:
    """Return the sha256 of each module in the closure of these, by name.

    Raises:
        ValueError: a module without a source file.
    """
    return {name: _read(name)[0] for name in closure(*modules)}


@lru_cache(maxsize=1024)
def closure(*modules: str) -> tuple[str, ...]:
    """Return the modules and all of ours that they import, functions' imports and parent packages included, sorted."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_read(name)[1] - seen)
    return tuple(sorted(seen))


def differing(digests: dict[str, str]) -> list[str]:
    """Return the modules that are missing here or differ from these digests, sorted."""
    return sorted(name for name, digest in digests.items() if not path_of(name) or _read(name)[0] != digest)


def is_ours(module: str) -> bool:
    """Tell whether a module's code counts: neither Python's nor that of an installed library."""
    return path_of(module) is not None


def content(nodes: Iterable[ast.AST], package: str) -> tuple[str, frozenset[str]]:
    """Return nodes as text that is equal for equal code, and the names that they import anywhere.

    The text depends neither on layout nor on the version of Python.

    Args:
        package: in which the code stands, for imports by a relative name.
    """
    words, names = list[str](), set[str]()
    for node in nodes:
        _write(node, words, names, package)
    return "\0".join(words), frozenset(names)


def ours(names: Iterable[str]) -> frozenset[str]:
    """Return the modules of ours among imported names, with their packages."""
    packages = {name[:place] for name in names for place, letter in enumerate(name) if letter == "."}
    return frozenset(name for name in {*names, *packages} if is_ours(name))


def counting(body: Iterable[ast.stmt]) -> list[ast.stmt]:
    """Return statements without docstrings and imports for type checking, which run nothing."""
    return [each for each in body if not _is_text(each) and not _is_for_types(each)]


@lru_cache(maxsize=2048)
def path_of(module: str) -> Path | None:
    """Return the file of a module of ours, None for others."""
    top, *rest = module.split(".")
    # Only the top package is looked up: find_spec of a submodule would import its parents, and torch with them.
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # of `__main__`, which has no spec
        return None
    if spec is None:
        return None
    if rest:
        places = [Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ()]
        files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    else:
        files = [Path(spec.origin)] if spec.has_location and spec.origin else []
    found = next((file for file in files if file.is_file()), None)
    is_library = top not in PACKAGES and found is not None and any(map(found.is_relative_to, _LIBRARIES))
    return None if is_library else found


@lru_cache(maxsize=512)
def _read(module: str) -> tuple[str, frozenset[str]]:
    """Return the digest of a module, and the modules of ours that it imports."""
    path = path_of(module)
    if path is None:
        raise ValueError(f"module {module!r} has no source file of ours; name an importable module of this project.")
    source, package = path.read_bytes(), module if path.name == "__init__.py" else module.rpartition(".")[0]

    def make() -> cache.Entry:
        text, names = content([ast.parse(source)], package)
        return hashlib.sha256(text.encode()).hexdigest(), names

    digest, names = cache.get_or_make(module, source, make)
    return digest, ours({*names, module}) - {module}


def _write(node: ast.AST, words: list[str], names: set[str], package: str) -> None:
    kind = type(node)
    words.append(kind.__name__)
    if isinstance(node, ast.Import):
        names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        names.add(source)
        names.update(f"{source}.{alias.name}" for alias in node.names)
    skipped = SKIPPED.get(kind, ())
    for name in kind._fields:
        value = getattr(node, name, None)
        # Versions of Python differ in the optional members that a node has.
        if value is None or name in skipped:
            continue
        if isinstance(value, list):
            if name == "body":
                value = counting(value)
            if value:
                words.append(name)
                for each in value:
                    if not isinstance(each, ast.AST):
                        words.append(repr(each))
                    # From 3.12 on an f-string holds empty texts too.
                    elif kind is not ast.JoinedStr or getattr(each, "value", None) != "":
                        _write(each, words, names, package)
        else:
            words.append(name)
            if isinstance(value, ast.AST):
                _write(value, words, names, package)
            else:
                words.append(repr(value))
    words.append(")")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_for_types(node: ast.AST) -> bool:
    if not isinstance(node, ast.If) or node.orelse:
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", None)
    return name == "TYPE_CHECKING" and all(isinstance(each, ast.Import | ast.ImportFrom) for each in node.body)
