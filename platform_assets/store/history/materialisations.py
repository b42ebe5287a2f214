"""Read what was seen of the assets that are sources."""

from __future__ import annotations

from platform_assets.store import host_rows
from platform_assets.store.history.base import Reader
from platform_assets.store.records.materialisations import MATERIALISED, Materialised


class Materialisations(Reader):
    """Materialisations by source and key."""

    def materialised(self, source: str, key: str) -> Materialised | None:
        """Return the newest that the rows of a key are from, or None. Three small reads."""
        latest = self._ledgers.of(MATERIALISED.of(host_rows.ledger(source, key))).latest()
        return latest and latest[1]
