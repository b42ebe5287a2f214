"""Open the ledgers and partition records of one product for reading."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from platform_assets.store.ledgers import Ledgers

if TYPE_CHECKING:
    from platform_assets.store.tables import TableStore


class Reader:
    """The ledgers and partition records of one product."""

    def __init__(self, root: str, product: str) -> None:
        """Name them without opening anything.

        Args:
            root: a folder or an `s3://` URL (`Settings.root`).
        """
        self.root, self.product = root, product
        self._ledgers = Ledgers(root, product)

    @cached_property
    def _tables(self) -> TableStore:
        from platform_assets.store.tables import TableStore

        return TableStore(self.root, self.product)
