"""Look for landed files: a mark that tells a file from another at the same place.

Belongs here: asking the store, with a bounded number of requests per tick. Does not belong here: which keys are looked
for (`landings`, `changes`), or reading a file (`resources.store`).

A bucket is listed from the first key that is looked for: one request per source folder instead of one per key. A folder
is asked file by file, because its listing would read the whole history.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets import naming
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage.objects import mark_of, open_store
from sensors.changes import Mark

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PAGE = 1_000
"""How many objects one listing returns at most: S3's own limit for one request."""


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A part of a folder's listing.

    Attributes:
        first, last: the paths between which every file is in `marks`; `last` is None up to the folder's end.
        marks: by path.
    """

    first: str
    last: str | None
    marks: dict[str, str]

    def covers(self, path: str) -> bool:
        return self.first <= path and (self.last is None or path <= self.last)


def marks(root: str, spec: ProductSpec) -> Mark:
    """Return what looks for a product's landed files, for one tick: what was listed is not listed again.

    Costs one request per slow source, and per other source one per 1,000 files at or after the first key that is looked
    for. Keys are cheapest in ascending order.

    Raises:
        obstore.exceptions.BaseError, OSError: on a call, when the store cannot be read.
    """
    import obstore

    store = open_store(root)
    is_folder = isinstance(store, obstore.store.LocalStore)
    pages: dict[str, _Page] = {}

    def mark(source: Source, key: str, beside: str = "") -> str | None:
        folder = spec.landing_of(source)
        path = naming.landing_place("", folder, key, f"{source.suffix}{beside}").lstrip("/")
        if is_folder or source.is_slow:
            return _look(store, path)
        if source.name not in pages or not pages[source.name].covers(path):
            pages[source.name] = _list(store, path)
        return pages[source.name].marks.get(path)

    return mark


def _look(store: "ObjectStore", path: str) -> str | None:
    import obstore

    try:
        return mark_of(obstore.head(store, path))
    except FileNotFoundError:
        return None


def _list(store: "ObjectStore", path: str) -> _Page:
    """Return the listing of a path's folder from that path on. Keys sort as text in their own order, in every grain."""
    import obstore

    folder = path.rpartition("/")[0]
    # A listing begins after its offset, and the path itself must be in it.
    listing = obstore.list(store, folder, offset=path[:-1], chunk_size=PAGE)
    found = next(iter(listing), [])
    last = found[-1]["path"] if len(found) == PAGE else None
    return _Page(first=path, last=last, marks={meta["path"]: mark_of(meta) for meta in found})
