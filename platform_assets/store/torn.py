"""Repair the end of a table's log after a power loss.

A writer flushes its commit to disk before anyone learns of it (`delta.make_durable`). So an incomplete commit at the
end
of the log was never acknowledged: it is replaced by an empty commit. An incomplete checkpoint is removed, because the
log has the same content. Anything incomplete that is followed by complete commits is damage from another cause, and an
error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from platform_assets.store import objects
from platform_assets.store.problems import TableProblem

if TYPE_CHECKING:
    from obstore.store import ObjectStore

LOG = "_delta_log"
NOTHING = b'{"commitInfo":{"operation":"DRIFTLINE UNDO","timestamp":0}}\n'
"""An empty commit, in place of an incomplete one."""
_VERSION = re.compile(r"(\d{20})\.(json|checkpoint\.parquet)")
_MAGIC = b"PAR1"


class Added(msgspec.Struct, frozen=True, rename="camel"):
    """A file that a commit adds; `path` is relative to the table's location and URL-quoted."""

    path: str
    size: int
    partition_values: dict[str, str]


class Removed(msgspec.Struct, frozen=True):
    """A file that a commit removes."""

    path: str


class CommitInfo(msgspec.Struct, frozen=True):
    """What our writers store with a commit: its id, and the records of its rows."""

    id: str | None = msgspec.field(default=None, name="driftline_commit")
    records: str | None = msgspec.field(default=None, name="driftline_records")


class Action(msgspec.Struct, frozen=True):
    """A line of a commit."""

    add: Added | None = None
    remove: Removed | None = None
    commit_info: CommitInfo = msgspec.field(default=CommitInfo(), name="commitInfo")


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One commit or checkpoint in a table's log; `size` in bytes, `path` relative to the table's location."""

    path: str
    version: int
    is_checkpoint: bool
    size: int
    modified_at: datetime


def undo_torn_commits(location: str, *, with_files: bool) -> bool:
    """Undo incomplete, unacknowledged commits; return whether there were any. Safe to run in two processes at once.

    Args:
        with_files: whether a commit is complete only with the files it adds; otherwise its log entry is enough.

    Raises:
        TableProblem: an incomplete commit is followed by others.
        obstore.exceptions.BaseError, OSError: the log cannot be read or written.
    """
    if not objects.is_there(location):
        return False
    store = objects.open_store(location)
    files = list(log_files(store))
    commits = {file.version: file.size for file in files if not file.is_checkpoint}
    checkpoints = {file.version: file.size for file in files if file.is_checkpoint}
    newer, torn = sorted(commits), list[int]()
    while newer and not _is_whole(store, newer[-1], commits[newer[-1]], with_files):
        torn.append(newer.pop())
    damaged = set(_damaged_checkpoints(store, checkpoints))
    # A checkpoint that includes a torn commit contains what is being undone.
    damaged |= {number for number in checkpoints if torn and number >= torn[-1]}
    first = max(checkpoints.keys() - damaged, default=-1) + 1
    if damaged:
        if missing := [number for number in range(first, max(damaged) + 1) if number not in commits]:
            raise TableProblem(
                f"{location}/{LOG}: checkpoint {max(damaged)} is damaged, and commit {missing[0]}, which it replaces, "
                "no longer exists. `driftline doctor` shows what can be rebuilt."
            )
        objects.remove(store, f"{LOG}/_last_checkpoint")
        for version in damaged:
            objects.remove(store, f"{LOG}/{version:020d}.checkpoint.parquet")
    newer = [number for number in newer if number >= first]
    if empty := [number for number in newer if not commits[number]]:
        raise TableProblem(
            f"{location}/{LOG}/{empty[0]:020d}.json is empty though later commits follow; it was damaged. "
            "`driftline doctor` shows what can be rebuilt."
        )
    for version in torn:
        path = f"{LOG}/{version:020d}.json"
        if 0 in torn:  # not even the table's creation was acknowledged
            objects.remove(store, path)
        else:
            objects.replace(store, path, NOTHING)
    return bool(damaged or torn)


def log_files(store: ObjectStore) -> Iterator[LogFile]:
    """Yield the commits and checkpoints of a table's log."""
    import obstore

    for batch in obstore.list(store, LOG):
        for item in batch:
            if named := _VERSION.fullmatch(item["path"].rsplit("/", 1)[-1]):
                yield LogFile(
                    path=item["path"],
                    version=int(named[1]),
                    is_checkpoint=named[2] != "json",
                    size=item["size"],
                    modified_at=item["last_modified"],
                )


def _damaged_checkpoints(store: ObjectStore, checkpoints: Mapping[int, int]) -> Iterator[int]:
    """Yield the checkpoints after the newest complete one."""
    import obstore

    for version in sorted(checkpoints, reverse=True):
        size = checkpoints[version]
        path = f"{LOG}/{version:020d}.checkpoint.parquet"
        # Parquet files end with this mark, so one without it was not written to its end.
        if size > 2 * len(_MAGIC) and bytes(obstore.get_range(store, path, start=size - 4, end=size)) == _MAGIC:
            return
        yield version


def _is_whole(store: ObjectStore, version: int, size: int, with_files: bool) -> bool:
    """Tell whether a commit can be parsed, and all files it adds have the sizes it states."""
    if not size:
        return False
    try:
        actions = actions_of(objects.read(store, f"{LOG}/{version:020d}.json") or b"")
    except ValueError:
        return False
    added = [action.add for action in actions if action.add] if with_files else []
    return all(objects.size(store, unquote(add.path)) == add.size for add in added)


def actions_of(data: bytes) -> list[Action]:
    """Parse the lines of a commit; raise `ValueError` where it is incomplete."""
    return [msgspec.json.decode(line, type=Action) for line in data.splitlines() if line.strip()]
