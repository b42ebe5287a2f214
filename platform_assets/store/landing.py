"""Find, read and name landed files, in a folder and on S3. Only this module knows where landed files are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, ClassVar

from platform_assets.base import naming
from platform_assets.product.channel_sites import Site, SitedChannel, project_of
from platform_assets.product.channels import Channel, Landed
from platform_assets.store import objects
from platform_assets.store.host_rows import AssetRows, TableRows

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from obstore.store import ObjectStore

    from platform_assets.product.sources import Source
    from platform_assets.product.spec import Product

PAGE = 1_000
"""Number of objects in one listing: S3's own limit per request."""


def shared(root: str) -> Callable[[], ObjectStore]:
    """Return a function that opens a root's client once, on first use: an S3 client takes 7 ms."""
    return cache(partial(objects.open_store, root))


@dataclass(frozen=True, kw_only=True)
class LandedFiles(Channel):
    """Files that an upstream system writes below `landing/` in the storage root, one per key.

    Attributes:
        root: the storage root.
        folder: below `landing/`.
        suffix: of file names.
        opened: returns the root's client, shared between channels; without it each channel opens its own.
    """

    PLACES: ClassVar[tuple[str, ...]] = ("root", "folder", "opened")

    root: str
    folder: str
    suffix: str
    opened: Callable[[], ObjectStore] | None = None

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a key's file. Costs one request. A pipe or a folder in a file's place is not a file."""
        path = self._path(key, companion)
        return None if objects.is_not_a_file(self._store, path) else objects.mark(self._store, path)

    def obstacle(self, key: str, companion: str = "") -> str | None:
        """Return what keeps a file from landing: a pipe, a folder or a device in its place; None without one."""
        if objects.is_not_a_file(self._store, self._path(key, companion)):
            return f"{self._uri(key, companion)} is a pipe, a folder or a device; expected a file"
        return None

    def arrived_at(self, key: str) -> datetime | None:
        """Return when a key's file was written. Costs one request."""
        path = self._path(key)
        return None if objects.is_not_a_file(self._store, path) else objects.modified(self._store, path)

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a key's file."""
        import obstore

        path, uri = self._path(key, companion), self._uri(key, companion)
        if (obstacle := self.obstacle(key, companion)) is not None:
            raise FileNotFoundError(f"{obstacle}.")
        try:
            response = obstore.get(self._store, path)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {uri}: it has not landed.") from None
        # Of the same response as the bytes: a second request may meet a file that was replaced in between.
        mark, arrived_at_utc = objects.mark_of(response.meta), response.meta["last_modified"]
        return Landed(uri=uri, data=bytes(response.bytes()), arrived_at_utc=arrived_at_utc, mark=mark)

    def cite(self, key: str | None = None) -> str:
        """Return the location of a key's file, or of the folder."""
        return naming.join(self.root, "landing", self.folder) if key is None else self._uri(key)

    def keys(self) -> list[str]:
        """Return the file names without the suffix. Costs one listing."""
        files = self._store.list_with_delimiter(f"{naming.join('landing', self.folder)}/")["objects"]
        names = [str(file["path"]).rpartition("/")[2] for file in files]
        return [name.removesuffix(self.suffix) for name in names if name.endswith(self.suffix)]

    def deliver(self, key: str, data: bytes) -> bool:
        """Write a key's file unless it already has these bytes."""
        import obstore

        path = self._path(key)
        try:
            is_there = bytes(obstore.get(self._store, path).bytes()) == data
        except FileNotFoundError:
            is_there = False
        if not is_there:
            obstore.put(self._store, path, data)
        return not is_there

    def for_tick(self) -> Channel:
        """Return a channel that lists a bucket's folder by page; a local folder is probed file by file.

        Listing a local folder would read the whole history, and probing it costs no request.
        """
        if objects.is_folder(self.root):
            return self
        # One HEAD per key was 46 requests per product and tick: with 50 products, at 26 ms each, all of Dagster's 60 s.
        return _ListedFiles(root=self.root, folder=self.folder, suffix=self.suffix, opened=self.opened)

    @cached_property
    def _store(self) -> ObjectStore:
        return objects.open_store(self.root) if self.opened is None else self.opened()

    def _uri(self, key: str, companion: str = "") -> str:
        return naming.landing_location(self.root, self.folder, key, f"{self.suffix}{companion}")

    def _path(self, key: str, companion: str = "") -> str:
        return naming.landing_location("", self.folder, key, f"{self.suffix}{companion}").lstrip("/")


class _ListedFiles(LandedFiles):
    """Landed files in a bucket. Costs one request per 1,000 files at or after the first probed key.

    Keys are cheapest in ascending order. A file listed once is not listed again.
    """

    def probe(self, key: str, companion: str = "") -> str | None:
        if key == naming.UNPARTITIONED:
            return super().probe(key, companion)
        path = self._path(key, companion)
        if not self._pages or not self._pages[-1].covers(path):
            import obstore

            # In every grain, keys sort as text in their own order. A listing starts after its offset, and the path
            # itself must be in it.
            listing = obstore.list(self._store, path.rpartition("/")[0], offset=path[:-1], chunk_size=PAGE)
            files = next(iter(listing), [])
            last = files[-1]["path"] if len(files) == PAGE else None
            marks = {meta["path"]: objects.mark_of(meta) for meta in files}
            self._pages[:] = [_Page(first=path, last=last, marks=marks)]
        return self._pages[-1].marks.get(path)

    @cached_property
    def _pages(self) -> list[_Page]:
        return []


@dataclass(frozen=True, kw_only=True)
class _Page:
    """Part of a folder's listing.

    Attributes:
        first, last: every file between these paths is in `marks`; `last` is None at the folder's end.
        marks: by path.
    """

    first: str
    last: str | None
    marks: dict[str, str]

    def covers(self, path: str) -> bool:
        return self.first <= path and (self.last is None or path <= self.last)


def channels(spec: Product, root: str, scratch: Path | None = None) -> dict[str, Channel]:
    """Open the channel of each source, by source name: its own, or landed files below a storage root.

    Args:
        scratch: a local folder for files that may be lost.
    """
    opened = shared(root)
    return {source.name: _channel(spec, source, root, opened, scratch) for source in spec.sources}


def _channel(
    spec: Product, source: Source, root: str, opened: Callable[[], ObjectStore], scratch: Path | None
) -> Channel:
    if isinstance(source.channel, SitedChannel):
        folder = project_of(spec.module)
        return source.channel.at(
            Site(grain=spec.grain, source=source.name, folder=folder, multiline=source.multiline, scratch=scratch)
        )
    if source.asset is not None:
        rows: Callable[..., AssetRows] = AssetRows
        if source.partition_by is not None:
            rows = partial(TableRows, by=source.partition_by, grain=spec.grain)
        return rows(root=root, product=spec.name, source=source.name, asset=source.asset)
    return source.channel or LandedFiles(root=root, folder=spec.landing_of(source), suffix=source.suffix, opened=opened)
