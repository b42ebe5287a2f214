"""Find every product: one module of this package, one `SPEC`."""

from __future__ import annotations

import importlib
import pkgutil

from platform_assets.specs.base import ProductSpec

VOCABULARY = ("base", "contract", "fields", "modelling", "money", "monitoring", "planned", "recording", "sources")
"""The modules of this package that are no products."""


def load(product: str) -> ProductSpec:
    """Return the spec of one product.

    Raises:
        ValueError: no such product, or a module whose `SPEC` is missing or has another name.
    """
    known = names()
    if product not in known:
        raise ValueError(
            f"there is no product {product!r}; known are {', '.join(known)} (files of platform_assets/specs/)."
        )
    module = importlib.import_module(f"{__name__}.{product}")
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, ProductSpec):
        raise ValueError(f"{module.__file__} has no SPEC; define `SPEC = ProductSpec(...)` at its end.")
    if spec.name != product:
        raise ValueError(f"{module.__file__} has SPEC.name {spec.name!r}; expected {product!r}, the file's name.")
    return spec


def load_all() -> tuple[ProductSpec, ...]:
    """Return every product's spec, sorted by name; raise `ValueError` for products that get in each other's way."""
    return check_together(tuple(load(product) for product in names()))


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
    return sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in VOCABULARY)
