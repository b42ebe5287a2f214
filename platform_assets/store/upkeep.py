"""Delete what tables no longer need: old logs and checkpoints, folded records, and files of killed writers.

Rows, blobs and ledgers stay. A file goes only when it is older than the retention: readers and writers of a table use
what they found there for minutes, not for days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.base import naming
from platform_assets.store import delta, objects, parts, torn

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from obstore.store import ObjectStore

RETENTION_HOURS = 168
ASIDE = ".damaged-"
"""Part of the name of a table that `driftline doctor` has put aside."""
_STAGED = re.compile(r".+#\d+")
"""obstore's name of an unfinished file in a folder."""


@dataclass(frozen=True)
class Removed:
    """Files and bytes that were deleted, or would be."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        """Add two counts."""
        return Removed(self.files + other.files, self.bytes + other.bytes)


def tidy(root: str, product: str, *, dry_run: bool, retention_hours: int = RETENTION_HOURS) -> dict[str, Removed]:
    """Delete what a product's tables no longer need; return the counts by kind.

    Args:
        dry_run: only count.
        retention_hours: minimum age of a file; 0 only when nothing else runs.

    Raises:
        TableProblem: a table cannot be opened or cleaned; those before it are clean.
    """
    before = datetime.now(UTC) - timedelta(hours=retention_hours)
    removed = {kind: Removed() for kind in ("log", "folded records", "folded parts", "unfinished files")}
    for kind, locate in (("folded parts", naming.table_location), ("folded records", naming.records_location)):
        for location in table_locations(root, locate("", product, "")):
            table = delta.open_table(location)
            if table is None:
                continue
            with delta.storage_errors(location, "could not be cleaned"):
                store = objects.open_store(location)
                # Rows of other tables stay: records name them.
                if kind == "folded records" or location.endswith(parts.SUFFIX):
                    # Listed and removed below, because deltalake says no sizes. By itself it refuses less than a week.
                    unused = table.vacuum(retention_hours, dry_run=True, enforce_retention_duration=False, full=True)
                    sizes = ((path, objects.size(store, path)) for path in unused)
                    folded = ((path, size) for path, size in sizes if size is not None)
                    removed[kind] += _remove(store, folded, dry_run=dry_run)
                # Row P9: of 400 keys taken in one by one, logs and records hold 59 MB before and 1.8 MB after.
                removed["log"] += _log(location, store, table, before, dry_run=dry_run)
    # What a killed writer left in a folder; a bucket has none.
    # obstore's listings hide unfinished files, so the folder itself is searched.
    for folder in (*(f"{name}/{product}" for name in ("tables", "records", "ledgers")), "artifacts"):
        for file in Path(root.removeprefix("file://"), folder).rglob("*#*") if objects.is_folder(root) else ():
            if _STAGED.fullmatch(file.name) and file.is_file():
                status = file.stat()
                if status.st_mtime < before.timestamp():
                    removed["unfinished files"] += Removed(1, status.st_size)
                    if not dry_run:
                        file.unlink(missing_ok=True)
    return removed


def table_locations(root: str, below: str) -> list[str]:
    """Return the locations of the tables below a path of the root, sorted, without those put aside."""
    import obstore

    if not objects.is_there(root):
        return []
    with delta.storage_errors(root, "cannot be listed"):
        prefixes = obstore.list_with_delimiter(objects.open_store(root), below.strip("/"))["common_prefixes"]
    return [naming.join(root, path) for path in sorted(prefixes) if ASIDE not in path.rsplit("/", 1)[-1]]


def _log(location: str, store: ObjectStore, table: DeltaTable, before: datetime, *, dry_run: bool) -> Removed:
    """Delete commits and checkpoints that a table's newest checkpoint replaces."""
    files = list(torn.log_files(store))
    old = [file for file in files if file.version < table.version() and file.modified_at < before]
    commits = [file.version for file in old if not file.is_checkpoint]
    newest = max((file.version for file in files if file.is_checkpoint), default=-1)
    if commits and newest < max(commits) and not dry_run:
        table.create_checkpoint()
        delta.make_durable(location, table.version())
    # A checkpoint holds all that the commits before it say.
    oldest_needed = table.version() if commits and newest < max(commits) else newest
    return _remove(store, ((file.path, file.size) for file in old if file.version < oldest_needed), dry_run=dry_run)


def _remove(store: ObjectStore, files: Iterable[tuple[str, int]], *, dry_run: bool) -> Removed:
    removed = Removed()
    for path, size in files:
        if dry_run or objects.remove(store, path):
            removed += Removed(1, size)
    return removed
