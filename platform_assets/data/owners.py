"""Claim a product's name in a store, so that two code locations do not take rows in for two products of one name.

The package of the product's module counts, so a file may be moved within it.
"""

from __future__ import annotations

from functools import lru_cache

from platform_assets.base.problems import Problem, RecordExists
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.versions import DEFINED_IN, FIRST, DefinedIn
from platform_assets.store.writing import LedgerWriters


class NameTaken(Problem, ValueError):
    """Another package's product has the name."""


def claim(product: ProductStore) -> None:
    """Claim the product's name for its package; one small read per process.

    Raises:
        NameTaken: a product of another package has it, and this one does not say that it replaces that.
    """
    module, package = product.spec.module, _package(product.spec.module)
    owner = _owner(product.settings.root, product.name, module)
    if _package(owner) not in (package, product.spec.moved_from):
        raise NameTaken(
            f"the rows of {product.name} in {product.settings.root} belong to the product of that name in {owner}, and "
            f"this one is in {module}; give it another name, or state moved_from={_package(owner)!r} in its Product "
            "if it is that product, moved."
        )


@lru_cache(maxsize=256)
def _owner(root: str, product: str, module: str) -> str:
    """Return the module that claimed the name, this one if none did before."""
    history = History(root, product)
    if (owner := history.defined_in()) is None:
        try:
            LedgerWriters(root, product).of(DEFINED_IN).create(FIRST, DefinedIn(module=module))
        # Another process claimed the name at the same moment, maybe for the same product.
        except RecordExists:
            owner = history.defined_in()
    return owner or module


def _package(module: str) -> str:
    return module.partition(".")[0]
