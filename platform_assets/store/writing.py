"""Write a product's records. Reading them is up to `history`."""

from __future__ import annotations

from platform_assets.store.ledgers import Ledgers, LedgerWriter
from platform_assets.store.records.base import R, RecordKind


class LedgerWriters:
    """The ledgers of one product, write access only."""

    def __init__(self, root: str, product: str) -> None:
        """Open the ledgers below a storage root (a folder or an `s3://` URL)."""
        self._ledgers = Ledgers(root, product)

    def of(self, kind: RecordKind[R]) -> LedgerWriter[R]:
        """Return the ledger of a kind of record."""
        return LedgerWriter(self._ledgers, kind)
