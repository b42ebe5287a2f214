"""Find every product: one module with one `SPEC`. Reports files without a working product.

In this checkout the modules are those of `platform_assets.products`. Elsewhere a Dagster component, or whoever calls
`build_defs`, names a product's module, which lies in the user's package.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass

from platform_assets.base.wording import meant
from platform_assets.engine import project
from platform_assets.engine.digests import modules, reads
from platform_assets.product.channel_sites import project_of
from platform_assets.product.spec import Product

FOLDER = "platform_assets.products"
"""Named and not imported: products are found, and nothing depends on one."""
PLACES = "a file of that name in platform_assets/products, or a component of the Dagster project that this folder is in"


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A product file that does not give a product.

    Attributes:
        name: of the file, without its suffix.
        file: its path.
        error: one sentence.
        cause: the exception, for its traceback.
    """

    name: str
    file: str
    error: str
    cause: BaseException = field(repr=False, compare=False)


_UNKNOWN = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_MODULES: dict[str, str] = {}
"""Modules of the products that lie elsewhere and were loaded, by product."""


def load(product: str) -> Product:
    """Load one product's spec.

    Raises:
        ValueError: there is no such product, or its file raises anything on import (including `SystemExit`, which would
            otherwise end a validation as if it had passed), or its `SPEC` is missing or has another name.
    """
    if module := _elsewhere().get(product):
        return load_module(module)
    if product not in _own_names():
        known = names()
        raise ValueError(
            f"{product!r} is not the name of a product; expected one of {', '.join(known)}.{meant(product, known)} Fix "
            f"the name, or add the product: {PLACES}."
        )
    spec = load_module(f"{FOLDER}.{product}")
    if spec.name != product:
        file = _file_of(f"{FOLDER}.{product}")
        raise ValueError(f"{file} has SPEC.name {spec.name!r}; expected {product!r}, the file's name.")
    return spec


def load_module(name: str) -> Product:
    """Load the product that a module defines; its package counts as the product's own code from now on.

    Raises:
        ValueError: the module raises anything on import, or has no `SPEC`.
    """
    if not name.startswith(f"{FOLDER}."):
        modules.add_package(name.partition(".")[0])
    try:
        with reads.guarded(name):
            module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a file may also end the process
        raise ValueError(broken_by(name, problem).error) from problem
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, Product):
        raise ValueError(f"{module.__file__} has no SPEC; define `SPEC = Product(...)` at its end.")
    if not name.startswith(f"{FOLDER}."):
        _MODULES[spec.name] = name
    return spec


def load_of(product: str, module: str) -> Product:
    """Load a product from the module that a run named.

    Raises:
        ValueError: the module cannot be loaded, or defines another product.
    """
    spec = load_module(module)
    if spec.name != product:
        raise ValueError(f"module {module} defines the product {spec.name!r}; expected {product!r}, as the run says.")
    return spec


def load_all() -> tuple[Product, ...]:
    """Load every product's spec, sorted by name; raise `ValueError` naming every broken file."""
    specs, broken = load_each()
    if broken:
        raise problem_of(broken) from broken[0].cause
    return specs


def load_each(only: Iterable[str] | None = None) -> tuple[tuple[Product, ...], tuple[Broken, ...]]:
    """Load the products that work, and list the broken files, each sorted by name.

    If two products land in one folder, one is kept: the product the folder is named after, otherwise the first by name.

    Args:
        only: names of the products to load; None: all.
    """
    loaded: list[Product] = []
    accepted: list[Product] = []
    broken: list[Broken] = []
    for name in names() if only is None else only:
        try:
            loaded.append(load(name))
        except ValueError as problem:
            broken.append(unloadable(f"{FOLDER}.{name}", problem))
    for spec in sorted(loaded, key=lambda spec: any(source.landing is not None for source in spec.sources)):
        try:
            check_together((*accepted, spec))
        except ValueError as problem:
            broken.append(Broken(name=spec.name, file=_file_of(spec.module), error=str(problem), cause=problem))
        else:
            accepted.append(spec)
    return tuple(sorted(accepted, key=lambda spec: spec.name)), tuple(sorted(broken, key=lambda item: item.name))


def unloadable(module: str, problem: ValueError) -> Broken:
    """Describe a module that `load_module` refused."""
    cause = problem.__cause__ or problem
    return Broken(name=_name_of(module), file=_file_of(module), error=str(problem), cause=cause)


def broken_by(module: str, problem: BaseException) -> Broken:
    """Describe a module broken by an exception, with the line of its file it was raised at, if any."""
    file = _file_of(module)
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == file]
    at = f", line {lines[-1]}," if lines else ""
    first, *more = str(problem).splitlines() or ["no message"]
    error = f"{file}{at} cannot be loaded: {type(problem).__name__}: {first.rstrip('.')}{' ...' if more else ''}."
    if isinstance(problem, ImportError) and problem.name == modules.PUBLIC:
        public = dir(importlib.import_module(modules.PUBLIC))
        named = re.search(r"cannot import name '(\w+)'", first)
        error += f" {modules.PUBLIC} has {', '.join(public)}.{meant(named[1], public) if named else ''}"
    elif isinstance(problem, TypeError) and (unknown := _UNKNOWN.search(first)):
        name, word = unknown.groups()
        kind = getattr(importlib.import_module(modules.PUBLIC), name, None)
        if is_dataclass(kind):  # one of our types
            known = [item.name for item in fields(kind)]
            error += f"{meant(word, known)} {name} has {', '.join(known)}."
    return Broken(name=_name_of(module), file=file, error=error, cause=problem)


def problem_of(broken: Iterable[Broken]) -> ValueError:
    """Combine all broken files into one error."""
    return ValueError("\n".join(item.error for item in broken))


def check_together(specs: tuple[Product, ...]) -> tuple[Product, ...]:
    """Return the products; raise `ValueError` if two have one name or land in one folder."""
    owners: dict[str, str] = {}
    for spec in specs:
        if spec.name in {other.name for other in specs if other is not spec}:
            raise ValueError(f"two products are called {spec.name!r}; rename one, and its file.")
        for source in spec.sources:
            folder, owner = spec.landing_of(source), f"{spec.name}, source {source.name}"
            if folder in owners and not owners[folder].startswith(f"{spec.name}, "):  # `Product` judges its own
                raise ValueError(
                    f"two products land in one folder, landing/{folder}: {owners[folder]}; and {owner}. Give one of "
                    "them another `landing` in its product's file."
                )
            owners[folder] = owner
    return specs


def owner_of(product: str) -> str | None:
    """Return who is responsible for a product; None if its file gives no product."""
    try:
        return load(product).owner
    except ValueError:
        return None


def names() -> list[str]:
    """Return the names of all products, sorted, whether they load or not; in a Dagster project, the project's."""
    host, elsewhere = project.found(), _elsewhere()
    return sorted({*elsewhere, *(_own_names() if host is None or host.is_checkout else ())})


def _own_names() -> set[str]:
    return {item.name for item in pkgutil.iter_modules(importlib.import_module(FOLDER).__path__)}


def _elsewhere() -> dict[str, str]:
    """Return the modules of the project's components, by folder, and of what was loaded, by product."""
    return {_name_of(item.module): item.module for item in project.components()} | _MODULES


def _name_of(module: str) -> str:
    """Return what a product is called that could not be loaded: its file's name, or its folder's for `product.py`."""
    package, _, name = module.rpartition(".")
    return package.rpartition(".")[2] if name == "product" else name


def place_of(product: str) -> str:
    """Return the path of a product's file as a person in its project writes it."""
    module = _elsewhere().get(product)
    path = None if module is None else modules.path_of(module)
    if path is None:
        return f"{FOLDER.replace('.', '/')}/{product}.py"
    folder = project_of(str(module))
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _file_of(module: str) -> str:
    """Return a module's file without importing the module; its name where there is none."""
    if module.startswith(f"{FOLDER}."):
        found = importlib.util.find_spec(module)
        return (found and found.origin) or module
    path = modules.path_of(module)  # imports none of its packages
    return module if path is None else str(path)
