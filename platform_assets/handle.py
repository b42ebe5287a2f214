"""Hold one product in one place: what it declares, its tables, its records, its artifacts and its clock.

Belongs here: opening them. Does not belong here: what any of them means. Nothing is read before it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from platform_assets import clock
from platform_assets.history.reader import History
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec

if TYPE_CHECKING:
    from datetime import datetime

    from platform_assets.product.channels import Channel
    from platform_assets.storage.artifacts import ArtifactStore
    from platform_assets.storage.tables import TableStore
    from platform_assets.storage.writing import LedgerWriters


@dataclass(frozen=True)
class Product:
    """A product where the settings say.

    Attributes:
        spec: what its file declares.
        settings: where everything is kept.
    """

    spec: ProductSpec
    settings: Settings

    @property
    def name(self) -> str:
        """The product's name."""
        return self.spec.name

    @property
    def now(self) -> datetime:
        """The product's current moment in UTC.

        Raises:
            LookupError: for a recording whose clock nobody has set yet.
        """
        return clock.now(self.settings, self.name, is_live=self.spec.is_live)

    @cached_property
    def tables(self) -> TableStore:
        """Tables and partition records."""
        from platform_assets.storage.tables import TableStore

        return TableStore(self.settings.root, self.name)

    @cached_property
    def history(self) -> History:
        """What happened: the reader of the product's records."""
        return History(self.settings.root, self.name)

    @cached_property
    def ledgers(self) -> LedgerWriters:
        """Where the product's create-only records are written."""
        from platform_assets.storage.writing import LedgerWriters

        return LedgerWriters(self.settings.root, self.name)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Blobs under their sha256, of all products."""
        from platform_assets.storage.artifacts import ArtifactStore

        return ArtifactStore(self.settings.root)

    @cached_property
    def channels(self) -> dict[str, Channel]:
        """Access to the deliveries of each source, by its name."""
        return self.spec.channels(self.settings.root)
