"""Keep the handles of Delta tables, so that a process opens a table once for all its writes.

Opening reads the newest checkpoint and every later commit: 5 to 10 ms for a small table in a folder, a second for one
of 90,000 files, and on S3 some requests by a client of its own. A kept handle reads what was committed since.

A handle belongs to the table that it was opened for: if the log's file of its version is gone or another file, the
table was replaced, and the handle is of no use.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from platform_assets.store import objects

if TYPE_CHECKING:
    from deltalake import DeltaTable

MOST_TABLES = 64
MOST_FILES = 100_000
"""Of all kept tables together; a handle holds half a kilobyte per file."""

_kept: OrderedDict[tuple[object, ...], tuple[DeltaTable, str, int]] = OrderedDict()
_lock = threading.Lock()
# deltalake's threads do not exist in a forked copy: after a first use of the library its calls hang there.
os.register_at_fork(after_in_child=_kept.clear)


def take(location: str) -> DeltaTable | None:
    """Return the kept handle at the table's newest version; None without one, or where the table was replaced.

    Nobody else gets this handle until it is kept again.

    Raises:
        deltalake.exceptions.DeltaError, obstore.exceptions.BaseError, OSError: the log cannot be read.
    """
    with _lock:
        kept = _kept.pop(_name(location), None)
    if kept is None:
        return None
    table, mark, _ = kept
    if objects.mark(objects.open_store(location), log_file(table.version())) != mark:
        return None
    table.update_incremental()
    return table


def keep(location: str, table: DeltaTable, mark: str | None) -> None:
    """Keep a handle that nobody uses any longer, and forget those that were not used for longest if there are too many.

    Args:
        mark: of the log's file of the table's version; None: it is gone, and nothing is kept.
    """
    count = table.get_add_actions().num_rows
    if mark is None or count > MOST_FILES:
        return
    with _lock:
        _kept[_name(location)] = (table, mark, count)
        _kept.move_to_end(_name(location))
        while len(_kept) > MOST_TABLES or sum(files for _, _, files in _kept.values()) > MOST_FILES:
            _kept.popitem(last=False)


def log_file(version: int) -> str:
    """Return the path of a version's commit, relative to the table's location."""
    return f"_delta_log/{version:020d}.json"


def _name(location: str) -> tuple[object, ...]:
    return location, objects.access()
