"""Say what of a syntax tree counts in a digest, which modules are ours, and which of them a module imports.

Comments, layout, docstrings and annotations of functions do not count; annotations in classes do, because dataclasses
are made of them. Names inside a module are followed by `definitions.py`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from platform_assets.engine.digests import cache
from platform_assets.product import data_files

PUBLIC = "driftline"
"""The module that products import; it says where each of its names is defined."""
PACKAGES = ("platform_assets", PUBLIC)
_OF_PRODUCTS: set[str] = set()
"""Top packages in which products lie, installed or not: a host's."""
LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
SKIPPED = {
    ast.FunctionDef: ("returns", "type_comment"),
    ast.AsyncFunctionDef: ("returns", "type_comment"),
    ast.arg: ("annotation", "type_comment"),
    ast.Constant: ("kind",),
}
"""Members of nodes that do not run."""
_DATA_FILES: dict[str, frozenset[str]] = {}
"""The names of the data files that each module reads."""


def digests(*modules: str) -> dict[str, str]:
    """Return the sha256 of each module in the closure of these, by name.

    Raises:
        ValueError: a module has no source file.
    """
    return {name: with_files(_read(name)[0], _files_of(name)) for name in closure(*modules)}


def files(*modules: str) -> dict[str, Path]:
    """Return each data file that a module in the closure of these reads, by its place in the project.

    Raises:
        DataFileProblem: one is missing.
    """
    return {place: file for name in closure(*modules) for place, file in _files_of(name).items()}


def placed(package: str, folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the data files of a module of this package in this folder, by their place in the project.

    Raises:
        DataFileProblem: one is missing.
    """
    place = package.replace(".", "/")
    return {f"{place}/{name}".lstrip("/"): data_files.locate(folder, name) for name in sorted(names)}


def with_files(digest: str, files: Mapping[str, Path]) -> str:
    """Return the digest of code and of the data files that it reads, as they are now."""
    lines = [digest, *(f"{name} {data_files.sha256(file)}" for name, file in files.items())]
    return hashlib.sha256("\0".join(lines).encode()).hexdigest() if files else digest


@lru_cache(maxsize=1024)
def closure(*modules: str) -> tuple[str, ...]:
    """Return the modules and all of ours that they import (also in functions), with parent packages, sorted."""
    visited: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            pending.extend(_read(name)[1] - visited)
    return tuple(sorted(visited))


def defined(module: str, name: str) -> tuple[str, str]:
    """Return the module that defines a name that is imported from a module, and its name there."""
    if module != PUBLIC:
        return module, name
    names: Mapping[str, str] = importlib.import_module(PUBLIC).NAMES
    place, _, inside = names.get(name, f"{module}:{name}").partition(":")
    if inside:
        return place, inside
    package, _, inside = place.rpartition(".")
    return package, inside


def add_package(top: str) -> None:
    """Have a top package that holds a product count as code of its own, also where it is installed."""
    if top not in _OF_PRODUCTS:
        _OF_PRODUCTS.add(top)
        for cached in (closure, is_own, path_of, _read):
            cached.cache_clear()


def is_in_host(module: str) -> bool:
    """Tell whether a module lies in a host's package, most of which belongs to no product."""
    return module.partition(".")[0] in _OF_PRODUCTS


def is_ours(module: str) -> bool:
    """Tell whether a module is ours: neither Python's nor an installed library's."""
    return path_of(module) is not None


@lru_cache(maxsize=2048)
def is_own(module: str) -> bool:
    """Tell whether a module is a product's file, or one that it comes with; others are the platform's."""
    return module.startswith("platform_assets.products.") or module.split(".")[0] not in PACKAGES


def content(nodes: Iterable[ast.AST], package: str) -> tuple[str, frozenset[str]]:
    """Return nodes as text that is equal for equal code, and all names that they import.

    The text depends neither on layout nor on the version of Python.

    Args:
        package: of the code, for relative imports.
    """
    tokens, names = list[str](), set[str]()
    for node in nodes:
        _write(node, tokens, names, package)
    return "\0".join(tokens), frozenset(names)


def ours(names: Iterable[str]) -> frozenset[str]:
    """Return our modules among imported names, with the platform's packages around them.

    What a host's package does when it is imported is the host's: its `__init__` counts where it is imported by name.
    """
    packages = {name[:index] for name in names for index, letter in enumerate(name) if letter == "."}
    around = {name for name in packages if not is_in_host(name)}
    return frozenset(name for name in {*names, *around} if is_ours(name))


def counting(body: Iterable[ast.stmt]) -> list[ast.stmt]:
    """Return statements without docstrings and type-checking imports, which do not run."""
    return [
        node
        for node in body
        if not _is_for_types(node) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


@lru_cache(maxsize=8192)
def path_of(module: str) -> Path | None:
    """Return the file of one of our modules, None for others."""
    top, *rest = module.split(".")
    # Look up only the top package: find_spec of a submodule would import its parents, and torch with them.
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # `__main__` has no spec
        return None
    if spec is None:
        return None
    if rest:
        folders = [Path(location).joinpath(*rest) for location in spec.submodule_search_locations or ()]
        files = [file for folder in folders for file in (folder.with_suffix(".py"), folder / "__init__.py")]
    else:
        files = [Path(spec.origin)] if spec.has_location and spec.origin else []
    path = next((file for file in files if file.is_file()), None)
    if path is None or top in PACKAGES or top in _OF_PRODUCTS:
        return path
    # Python's own, or a library's, of this environment or of one that it adds.
    of_library = {"site-packages", "dist-packages"}.intersection(path.parts)
    return None if of_library or any(map(path.is_relative_to, LIBRARIES)) else path


def package_of(module: str, path: Path) -> str:
    """Return the package of a module with this file."""
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def _files_of(module: str) -> dict[str, Path]:
    """Return the data files that a module reads, once it was read itself, by their place in the project."""
    names, path = _DATA_FILES.get(module), path_of(module)
    return placed(package_of(module, path), path.parent, names) if names and path else {}


@lru_cache(maxsize=512)
def _read(module: str) -> tuple[str, frozenset[str]]:
    """Return the digest of a module, and our modules that it imports; note the data files that it reads."""
    path = path_of(module)
    if path is None:
        raise ValueError(f"module {module!r} has no source file of ours; name an importable module of this project.")
    source = path.read_bytes()

    def make() -> cache.Entry:
        tree = ast.parse(source)
        text, names = content([tree], package_of(module, path))
        read = data_files.names_in([tree], data_files.aliases_in(tree))
        return hashlib.sha256(text.encode()).hexdigest(), names, read

    digest, names, _DATA_FILES[module] = cache.get_or_make(module, source, make)
    return digest, ours({*names, module}) - {module}


def _write(node: ast.AST, tokens: list[str], names: set[str], package: str) -> None:
    kind = type(node)
    tokens.append(kind.__name__)
    if isinstance(node, ast.Import):
        names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        for place, inside in (defined(source, alias.name) for alias in node.names):
            names.update((place, f"{place}.{inside}"))
    skipped = SKIPPED.get(kind, ())
    for name in kind._fields:
        value = getattr(node, name, None)
        # Python versions differ in the optional members of a node.
        if value is None or name in skipped:
            continue
        if isinstance(value, list):
            if name == "body":
                value = counting(value)
            if value:
                tokens.append(name)
                for child in value:
                    if not isinstance(child, ast.AST):
                        tokens.append(repr(child))
                    # From 3.12 on, an f-string also contains empty texts.
                    elif kind is not ast.JoinedStr or getattr(child, "value", None) != "":
                        _write(child, tokens, names, package)
        else:
            tokens.append(name)
            if isinstance(value, ast.AST):
                _write(value, tokens, names, package)
            else:
                tokens.append(repr(value))
    tokens.append(")")


def _is_for_types(node: ast.AST) -> bool:
    if not isinstance(node, ast.If) or node.orelse:
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", None)
    return name == "TYPE_CHECKING" and all(isinstance(item, ast.Import | ast.ImportFrom) for item in node.body)
