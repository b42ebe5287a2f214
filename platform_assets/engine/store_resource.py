"""Give assets and sensors the store: tables, artifacts, ledgers and the clock, built from the settings."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.base import clock
from platform_assets.base.settings import Settings

if TYPE_CHECKING:
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.history.reader import History
    from platform_assets.store.tables import TableStore
    from platform_assets.store.writing import LedgerWriters


class StoreResource(dg.ConfigurableResource[None]):
    """The store that the environment names.

    Attributes:
        variables: the environment to read; the process's own when None.
    """

    variables: dict[str, str] | None = None

    @property
    def settings(self) -> Settings:
        """What differs between a laptop and a cluster, read now."""
        return Settings.from_environment(self.variables)

    @property
    def artifacts(self) -> ArtifactStore:
        """Blobs under their sha256."""
        # Imported when it is asked for: definitions load with this module, and with no client of a store.
        from platform_assets.store.artifacts import ArtifactStore

        return ArtifactStore(self.settings.root)

    def tables(self, product: str) -> TableStore:
        """Return a product's tables and partition records, also of one whose file is gone."""
        from platform_assets.store.tables import TableStore

        return TableStore(self.settings.root, product)

    def history(self, product: str) -> History:
        """Return the reader of a product's records."""
        from platform_assets.store.history.reader import History

        return History(self.settings.root, product)

    def ledgers(self, product: str) -> LedgerWriters:
        """Return the writer of a product's create-only records."""
        from platform_assets.store.writing import LedgerWriters

        return LedgerWriters(self.settings.root, product)

    def now(self, product: str, *, is_live: bool) -> datetime:
        """Return the product's current moment in UTC."""
        return clock.now(self.settings, product, is_live=is_live)
