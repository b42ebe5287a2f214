"""Read requests to build all keys with the slow tables of today."""

from __future__ import annotations

from platform_assets.store.history.base import Reader
from platform_assets.store.records.rebuilds import REBUILD_SNAPSHOTS, REBUILDS, Rebuild, RebuildSnapshots


class Rebuilds(Reader):
    """Rebuilds by number, counted from 1; the newest counts."""

    def newest_rebuild(self) -> tuple[int, Rebuild] | None:
        """Return the newest rebuild with its number, or None. Three small reads."""
        return self._ledgers.of(REBUILDS).latest()

    def rebuild_snapshots(self, number: int) -> RebuildSnapshots | None:
        """Return what a rebuild's first run took; None before that run. One small read."""
        return self._ledgers.of(REBUILD_SNAPSHOTS).read(str(number))
