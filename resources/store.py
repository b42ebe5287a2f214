"""Give assets and sensors the store: tables, artifacts, ledgers, landed files and the clock.

Belongs here: making those of `platform_assets.storage` from the settings. Does not belong here: reading or writing
of any kind beyond a landed file's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import clock, naming
from platform_assets.settings import Settings

if TYPE_CHECKING:
    from platform_assets.history.reader import History
    from platform_assets.storage.artifacts import ArtifactStore
    from platform_assets.storage.tables import TableStore
    from platform_assets.storage.writing import LedgerWriters


@dataclass(frozen=True, kw_only=True)
class Landed:
    """A file as an upstream system delivered it; `mark` as `storage.objects.mark_of` gives it."""

    uri: str
    data: bytes
    arrived_at_utc: datetime
    mark: str


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
        from platform_assets.storage.artifacts import ArtifactStore

        return ArtifactStore(self.settings.root)

    def tables(self, product: str) -> TableStore:
        """Return a product's tables and partition records."""
        from platform_assets.storage.tables import TableStore

        return TableStore(self.settings.root, product)

    def history(self, product: str) -> History:
        """Return what happened to a product: the reader of its records."""
        from platform_assets.history.reader import History

        return History(self.settings.root, product)

    def ledgers(self, product: str) -> LedgerWriters:
        """Return where a product's create-only records are written."""
        from platform_assets.storage.writing import LedgerWriters

        return LedgerWriters(self.settings.root, product)

    def now(self, product: str, *, is_live: bool) -> datetime:
        """Return the product's current moment in UTC."""
        return clock.now(self.settings, product, is_live=is_live)

    def landed(self, folder: str, key: str, suffix: str) -> Landed:
        """Read a source's file of a key.

        Args:
            folder: the source's `landing`.
            key: whose file.
            suffix: of the file's name.

        Raises:
            FileNotFoundError: naming where it was expected.
        """
        from platform_assets.storage.objects import mark_of, open_store

        root = self.settings.root
        uri = naming.landing_place(root, folder, key, suffix)
        try:
            found = open_store(root).get(_path(folder, key, suffix))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {uri}: it has not landed.") from None
        mark, arrived_at_utc = mark_of(found.meta), found.meta["last_modified"]
        return Landed(uri=uri, data=bytes(found.bytes()), arrived_at_utc=arrived_at_utc, mark=mark)

    def landed_mark(self, folder: str, key: str, suffix: str) -> str | None:
        """Return the mark of a source's file of a key without reading it, or None where there is none; see `landed`."""
        from platform_assets.storage.objects import mark_of, open_store

        try:
            return mark_of(open_store(self.settings.root).head(_path(folder, key, suffix)))
        except FileNotFoundError:
            return None


def _path(folder: str, key: str, suffix: str) -> str:
    return naming.landing_place("", folder, key, suffix).lstrip("/")
