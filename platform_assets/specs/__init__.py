"""Find every product: one module of this package, one `SPEC`; and say which files hold none that works."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

from platform_assets import naming
from platform_assets.specs.base import ProductSpec


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A product's file that gives no product.

    Attributes:
        name: of the file, without its suffix.
        file: its path.
        error: one sentence.
        cause: what was raised, for its traceback.
    """

    name: str
    file: str
    error: str
    cause: BaseException = field(repr=False, compare=False)


def load(product: str) -> ProductSpec:
    """Return the spec of one product.

    Raises:
        ValueError: no such product, a file that raises anything when it is imported (`SystemExit` too, with which a
            file would end a validation as if it had passed), or whose `SPEC` is missing or has another name.
    """
    known = names()
    if product not in known:
        raise ValueError(
            f"there is no product {product!r}; known are {', '.join(known)} (files of platform_assets/specs/)."
        )
    try:
        module = importlib.import_module(f"{__name__}.{product}")
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        raise ValueError(broken_by(product, problem).error) from problem
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, ProductSpec):
        raise ValueError(f"{module.__file__} has no SPEC; define `SPEC = ProductSpec(...)` at its end.")
    if spec.name != product:
        raise ValueError(f"{module.__file__} has SPEC.name {spec.name!r}; expected {product!r}, the file's name.")
    return spec


def load_all() -> tuple[ProductSpec, ...]:
    """Return every product's spec, sorted by name; raise `ValueError` that names every file that is broken."""
    found, broken = load_each()
    if broken:
        raise problem_of(broken) from broken[0].cause
    return found


def load_each() -> tuple[tuple[ProductSpec, ...], tuple[Broken, ...]]:
    """Return the products that load, and the files that give none, each sorted by name.

    Of two products that land in one folder, one is kept: the folder is that of the product whose name it bears, else
    of the first by name.
    """
    loaded: list[ProductSpec] = []
    kept: list[ProductSpec] = []
    broken: list[Broken] = []
    for name in names():
        try:
            loaded.append(load(name))
        except ValueError as problem:
            broken.append(
                Broken(name=name, file=_file_of(name), error=str(problem), cause=problem.__cause__ or problem)
            )
    for spec in sorted(loaded, key=lambda spec: any(source.landing is not None for source in spec.sources)):
        try:
            check_together((*kept, spec))
        except ValueError as problem:
            broken.append(Broken(name=spec.name, file=_file_of(spec.name), error=str(problem), cause=problem))
        else:
            kept.append(spec)
    return tuple(sorted(kept, key=lambda spec: spec.name)), tuple(sorted(broken, key=lambda each: each.name))


def broken_by(product: str, problem: BaseException) -> Broken:
    """Return a file that is broken by what was raised, with the line of the file at which it was, if at any."""
    file = _file_of(product)
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == file]
    at = f", line {lines[-1]}," if lines else ""
    first, *more = str(problem).splitlines() or ["no message"]
    error = f"{file}{at} cannot be loaded: {type(problem).__name__}: {first.rstrip('.')}{' ...' if more else ''}."
    return Broken(name=product, file=file, error=error, cause=problem)


def problem_of(broken: Iterable[Broken]) -> ValueError:
    """Return one error for all broken files."""
    return ValueError("\n".join(each.error for each in broken))


def check_together(found: tuple[ProductSpec, ...]) -> tuple[ProductSpec, ...]:
    """Return the products, or raise `ValueError` when two have one name or land in one folder."""
    owners: dict[str, str] = {}
    for spec in found:
        if spec.name in {each.name for each in found if each is not spec}:
            raise ValueError(f"two products are called {spec.name!r}; rename one, and its file.")
        for source in spec.sources:
            place, mine = spec.landing_of(source), f"{spec.name}, source {source.name}"
            if place in owners:
                raise ValueError(
                    f"two products land in one folder, landing/{place}: {owners[place]}; and {mine}. Give one of them "
                    "another `landing` in its product's file."
                )
            owners[place] = mine
    return found


def names() -> list[str]:
    """Return the name of every product's file, sorted, whether it loads or not."""
    return sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in naming.SPEC_VOCABULARY)


def _file_of(product: str) -> str:
    found = importlib.util.find_spec(f"{__name__}.{product}")
    return (found and found.origin) or product
