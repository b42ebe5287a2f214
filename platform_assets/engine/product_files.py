"""Find every product: one module of `platform_assets.products` with one `SPEC`. Reports files without a working
product.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

from platform_assets.engine.digests import modules, reads
from platform_assets.product.spec import Product

FOLDER = "platform_assets.products"
"""Named and not imported: products are found, and nothing depends on one."""


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


def load(product: str) -> Product:
    """Load one product's spec.

    Raises:
        ValueError: there is no such product, or its file raises anything on import (including `SystemExit`, which would
            otherwise end a validation as if it had passed), or its `SPEC` is missing or has another name.
    """
    known = names()
    if product not in known:
        raise ValueError(
            f"{product!r} is not the name of a product; expected one of {', '.join(known)}. Fix the name, or add a "
            "file of that name to platform_assets/products."
        )
    try:
        with reads.guarded(name := f"{FOLDER}.{product}"):
            module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a file may also end the process
        raise ValueError(broken_by(product, problem).error) from problem
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, Product):
        raise ValueError(f"{module.__file__} has no SPEC; define `SPEC = Product(...)` at its end.")
    if spec.name != product:
        raise ValueError(f"{module.__file__} has SPEC.name {spec.name!r}; expected {product!r}, the file's name.")
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
            broken.append(
                Broken(name=name, file=_file_of(name), error=str(problem), cause=problem.__cause__ or problem)
            )
    for spec in sorted(loaded, key=lambda spec: any(source.landing is not None for source in spec.sources)):
        try:
            check_together((*accepted, spec))
        except ValueError as problem:
            broken.append(Broken(name=spec.name, file=_file_of(spec.name), error=str(problem), cause=problem))
        else:
            accepted.append(spec)
    return tuple(sorted(accepted, key=lambda spec: spec.name)), tuple(sorted(broken, key=lambda item: item.name))


def broken_by(product: str, problem: BaseException) -> Broken:
    """Describe a file broken by an exception, with the line of the file it was raised at, if any."""
    file = _file_of(product)
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == file]
    at = f", line {lines[-1]}," if lines else ""
    first, *more = str(problem).splitlines() or ["no message"]
    error = f"{file}{at} cannot be loaded: {type(problem).__name__}: {first.rstrip('.')}{' ...' if more else ''}."
    if isinstance(problem, ImportError) and problem.name == modules.PUBLIC:
        error += f" {modules.PUBLIC} has {', '.join(dir(importlib.import_module(modules.PUBLIC)))}."
    return Broken(name=product, file=file, error=error, cause=problem)


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
            if folder in owners:
                raise ValueError(
                    f"two products land in one folder, landing/{folder}: {owners[folder]}; and {owner}. Give one of "
                    "them another `landing` in its product's file."
                )
            owners[folder] = owner
    return specs


def names() -> list[str]:
    """Return the names of all product files, sorted, whether they load or not."""
    return sorted(item.name for item in pkgutil.iter_modules(_folder()))


def _folder() -> list[str]:
    return list(importlib.import_module(FOLDER).__path__)


def _file_of(product: str) -> str:
    module_spec = importlib.util.find_spec(f"{FOLDER}.{product}")
    return (module_spec and module_spec.origin) or product
