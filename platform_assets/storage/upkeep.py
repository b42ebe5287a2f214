"""Remove what tables have written over: old logs and checkpoints, folded records, and what killed writers left behind.

Rows, blobs and ledgers stay. A file goes only when it is older than a retention: whoever reads or writes a table holds
on to what he found there for minutes, not for days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets import naming
from platform_assets.storage import delta, objects, torn

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RETENTION_HOURS = 168
ASIDE = ".damaged-"
"""In the name of a table that `driftline doctor` has put aside."""
_STAGED = re.compile(r".+#\d+")
"""What a folder's client names a file until it is whole."""


@dataclass(frozen=True)
class Removed:
    """What went, or would go."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        """Return both together."""
        return Removed(self.files + other.files, self.bytes + other.bytes)


def tidy(root: str, product: str, *, dry_run: bool, retention_hours: int = RETENTION_HOURS) -> dict[str, Removed]:
    """Remove what all tables of a product have written over; return what went, by kind.

    Args:
        root: the storage root.
        product: whose tables.
        dry_run: only tell what would go.
        retention_hours: how old a file must be at least; 0 only when nothing else runs.

    Raises:
        TableProblem: a table that cannot be opened or cleaned; those before it are clean.
    """
    before = datetime.now(UTC) - timedelta(hours=retention_hours)
    gone = {"log": Removed(), "folded records": Removed(), "unfinished files": Removed()}
    for place in table_locations(root, naming.table_location("", product, "")):
        gone["log"] += _log(place, before, dry_run=dry_run)
    for place in table_locations(root, naming.records_location("", product, "")):
        gone["folded records"] += _folded(place, retention_hours, dry_run=dry_run)
        gone["log"] += _log(place, before, dry_run=dry_run)
    for folder in ("tables", "records", "ledgers"):
        gone["unfinished files"] += _unfinished(root, f"{folder}/{product}", before, dry_run=dry_run)
    gone["unfinished files"] += _unfinished(root, "artifacts", before, dry_run=dry_run)
    return gone


def table_locations(root: str, below: str) -> list[str]:
    """Return the places of the tables that lie below a path of the root, sorted, without those that were put aside."""
    import obstore

    if not objects.is_there(root):
        return []
    with delta.storage_errors(root, "cannot be listed"):
        found = obstore.list_with_delimiter(objects.open_store(root), below.strip("/"))["common_prefixes"]
    return [naming.join(root, path) for path in sorted(found) if ASIDE not in path.rsplit("/", 1)[-1]]


def _log(place: str, before: datetime, *, dry_run: bool) -> Removed:
    """Remove commits and checkpoints of a table's log that its newest checkpoint stands for."""
    table = delta.open_table(place)
    if table is None:
        return Removed()
    with delta.storage_errors(place, "could not be cleaned"):
        store = objects.open_store(place)
        files = list(torn.log_files(store))
        old = [file for file in files if file.version < table.version() and file.modified_at < before]
        commits = [file.version for file in old if not file.is_checkpoint]
        newest = max((file.version for file in files if file.is_checkpoint), default=-1)
        if commits and newest < max(commits) and not dry_run:
            table.create_checkpoint()
            delta.make_durable(place, table.version())
        kept_from = table.version() if commits and newest < max(commits) else newest
        return _remove(store, ((file.path, file.size) for file in old if file.version < kept_from), dry_run=dry_run)


def _folded(place: str, retention_hours: int, *, dry_run: bool) -> Removed:
    """Remove files whose records were folded into another one."""
    table = delta.open_table(place)
    if table is None:
        return Removed()
    with delta.storage_errors(place, "could not be cleaned"):
        store = objects.open_store(place)
        unused = table.vacuum(retention_hours, dry_run=True, enforce_retention_duration=False, full=True)
        sizes = ((path, objects.size(store, path)) for path in unused)
        return _remove(store, ((path, size) for path, size in sizes if size is not None), dry_run=dry_run)


def _unfinished(root: str, below: str, before: datetime, *, dry_run: bool) -> Removed:
    """Remove files that their writers, killed, never gave a name; a bucket has none."""
    gone = Removed()
    if not objects.is_folder(root):
        return gone
    for file in Path(root.removeprefix("file://"), below).rglob("*#*"):
        if _STAGED.fullmatch(file.name) and file.is_file():
            about = file.stat()
            if about.st_mtime < before.timestamp():
                gone += Removed(1, about.st_size)
                if not dry_run:
                    file.unlink(missing_ok=True)
    return gone


def _remove(store: ObjectStore, files: Iterable[tuple[str, int]], *, dry_run: bool) -> Removed:
    gone = Removed()
    for path, size in files:
        if dry_run or objects.remove(store, path):
            gone += Removed(1, size)
    return gone
