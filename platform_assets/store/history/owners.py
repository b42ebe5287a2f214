"""Read whose a product is."""

from __future__ import annotations

from platform_assets.store.history.base import Reader
from platform_assets.store.records.owners import DEFINED_IN, FIRST


class Owners(Reader):
    """The package that a product's name belongs to."""

    def defined_in(self) -> str | None:
        """Return the module that defined the product when its first rows were taken in. One read."""
        record = self._ledgers.of(DEFINED_IN).read(FIRST)
        return None if record is None else record.module
