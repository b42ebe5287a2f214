"""Give access to one product: spec, tables, records, artifacts and clock. Everything is opened on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.product.spec import Product, Source
from platform_assets.store import landing
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.history.reader import History
from platform_assets.store.history.snapshots import Snapshots
from platform_assets.store.writing import LedgerWriters

if TYPE_CHECKING:
    from datetime import datetime

    from platform_assets.product.channels import Channel
    from platform_assets.store.tables import TableStore


@dataclass(frozen=True)
class ProductStore:
    """A product in the storage that the settings name."""

    spec: Product
    settings: Settings

    @property
    def name(self) -> str:
        """The product's name."""
        return self.spec.name

    @property
    def now(self) -> datetime:
        """The product's current moment in UTC.

        Raises:
            LookupError: a recording's clock is not set.
        """
        return clock.now(self.settings, self.name, is_live=self.spec.is_live)

    def awaited_until(self, source: Source, key: str) -> datetime | None:
        """Return the moment from which a key's delivery may be taken in (`taken_from`), None once it has passed.

        By the product's clock; while a recording's is not set, everything recorded is in the past.
        """
        moment = self.spec.taken_from(source, key)
        try:
            return None if moment is None or self.now >= moment else moment
        except LookupError:
            return None

    @cached_property
    def tables(self) -> TableStore:
        """The product's tables and partition records."""
        from platform_assets.store.tables import TableStore

        return TableStore(self.settings.root, self.name)

    @cached_property
    def history(self) -> History:
        """The reader of the product's records."""
        return History(self.settings.root, self.name)

    @cached_property
    def snapshots(self) -> Snapshots:
        """The snapshots of the slow tables that features read."""
        slow = [naming.stage("validated", source.name) for source in self.spec.feature_sources if source.is_slow]
        return Snapshots(self.tables, self.history, self.spec.grain, slow)

    @cached_property
    def ledgers(self) -> LedgerWriters:
        """The writer of the product's create-only records."""
        return LedgerWriters(self.settings.root, self.name)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The blobs of all products, by sha256."""
        return ArtifactStore(self.settings.root)

    @cached_property
    def channels(self) -> dict[str, Channel]:
        """Access to the deliveries of each source, by source name."""
        return landing.channels(self.spec, self.settings.root, self.settings.scratch)
