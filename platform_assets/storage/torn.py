"""Put right what a loss of power left at the end of a table's log.

Whoever commits brings the commit to the disk before anybody is told of it (`delta.make_durable`). So a commit at the
end whose log or files are not whole was never acknowledged: it becomes a commit of nothing. A checkpoint that is not
whole goes, for the log says the same. What is not whole and has whole commits after it was damaged by something else,
and is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from platform_assets.storage import objects
from platform_assets.storage.problems import TableProblem

if TYPE_CHECKING:
    from obstore.store import ObjectStore

LOG = "_delta_log"
NOTHING = b'{"commitInfo":{"operation":"DRIFTLINE UNDO","timestamp":0}}\n'
"""The commit that replaces one that is not whole."""
_VERSION = re.compile(r"(\d{20})\.(json|checkpoint\.parquet)")
_MAGIC = b"PAR1"


class Added(msgspec.Struct, frozen=True, rename="camel"):
    """A file that a commit adds; `path` below the table's place, as a URL has it."""

    path: str
    size: int
    partition_values: dict[str, str]


class Removed(msgspec.Struct, frozen=True):
    """A file that a commit takes away."""

    path: str


class CommitInfo(msgspec.Struct, frozen=True):
    """What our writers keep with a commit: its id, and what the records of its rows will say."""

    id: str | None = msgspec.field(default=None, name="driftline_commit")
    records: str | None = msgspec.field(default=None, name="driftline_records")


class Action(msgspec.Struct, frozen=True):
    """A line of a commit."""

    add: Added | None = None
    remove: Removed | None = None
    commit_info: CommitInfo = msgspec.field(default=CommitInfo(), name="commitInfo")


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One commit or checkpoint in a table's log; `size` in bytes, `path` below the table's place."""

    path: str
    version: int
    is_checkpoint: bool
    size: int
    modified_at: datetime


def undo_torn_commits(place: str, *, with_files: bool) -> bool:
    """Undo unacknowledged commits that are not whole, and tell whether there was something to do.

    Two processes may do it at once: both write the same.

    Args:
        place: the table's.
        with_files: whether a commit is whole only with the files that it adds; else its line in the log is enough.

    Raises:
        TableProblem: a commit that is not whole has others after it.
        obstore.exceptions.BaseError, OSError: the log cannot be read or written.
    """
    if not objects.is_there(place):
        return False
    store = objects.open_store(place)
    files = list(log_files(store))
    commits = {file.version: file.size for file in files if not file.is_checkpoint}
    checkpoints = {file.version: file.size for file in files if file.is_checkpoint}
    newer, torn = sorted(commits), list[int]()
    while newer and not _is_whole(store, newer[-1], commits[newer[-1]], with_files):
        torn.append(newer.pop())
    damaged = set(_damaged_checkpoints(store, checkpoints))
    # One that holds a torn commit says what is undone.
    damaged |= {number for number in checkpoints if torn and number >= torn[-1]}
    first = max(checkpoints.keys() - damaged, default=-1) + 1
    if damaged:
        if missing := [number for number in range(first, max(damaged) + 1) if number not in commits]:
            raise TableProblem(
                f"{place}/{LOG}: checkpoint {max(damaged)} is damaged, and commit {missing[0]}, which it stands for, "
                "is not there any more. `driftline doctor` says what can be rebuilt."
            )
        objects.remove(store, f"{LOG}/_last_checkpoint")
        for version in damaged:
            objects.remove(store, f"{LOG}/{version:020d}.checkpoint.parquet")
    newer = [number for number in newer if number >= first]
    if empty := [number for number in newer if not commits[number]]:
        raise TableProblem(
            f"{place}/{LOG}/{empty[0]:020d}.json is empty though later commits follow; it was damaged. "
            "`driftline doctor` says what can be rebuilt."
        )
    for version in torn:
        path = f"{LOG}/{version:020d}.json"
        if 0 in torn:  # not even the table's making was acknowledged
            objects.remove(store, path)
        else:
            objects.replace(store, path, NOTHING)
    return bool(damaged or torn)


def log_files(store: ObjectStore) -> Iterator[LogFile]:
    """Yield what lies in a table's log."""
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
    """Yield the checkpoints after the newest whole one."""
    import obstore

    for version in sorted(checkpoints, reverse=True):
        size = checkpoints[version]
        path = f"{LOG}/{version:020d}.checkpoint.parquet"
        if size > 2 * len(_MAGIC) and bytes(obstore.get_range(store, path, start=size - 4, end=size)) == _MAGIC:
            return
        yield version


def _is_whole(store: ObjectStore, version: int, size: int, with_files: bool) -> bool:
    """Tell whether a commit can be read, and all files that it adds have the sizes that it says."""
    if not size:
        return False
    try:
        actions = actions_of(objects.read(store, f"{LOG}/{version:020d}.json") or b"")
    except ValueError:
        return False
    added = [action.add for action in actions if action.add] if with_files else []
    return all(objects.size(store, unquote(add.path)) == add.size for add in added)


def actions_of(data: bytes) -> list[Action]:
    """Return the lines of a commit; raise `ValueError` where it is not whole."""
    return [msgspec.json.decode(line, type=Action) for line in data.splitlines() if line.strip()]
