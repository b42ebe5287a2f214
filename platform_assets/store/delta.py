"""Open Delta tables and commit to them, retrying when a concurrent writer wins. The only module that calls deltalake.

Tables never clean their own log; `upkeep.py` does, when no reader can need it any more. They have no column statistics,
because every lookup is by key. Their files are small, so most of a file is Parquet's description of its columns.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import polars as pl

from platform_assets.store import durable, handles, objects, torn
from platform_assets.store.objects import open_store, reason
from platform_assets.store.problems import TableProblem

if TYPE_CHECKING:
    from deltalake import DeltaTable, WriterProperties

Result = TypeVar("Result")

COMMIT_ATTEMPTS = 20
LONGEST_WAIT_S = 0.5
# With deltalake's 100 the cost of opening a table is a sawtooth that grows with each commit up to the next checkpoint.
CHECKPOINT_INTERVAL = 10
CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),
    "delta.dataSkippingNumIndexedCols": "0",
    "delta.enableExpiredLogCleanup": "false",
}
COMMIT_ID = "driftline_commit"
FEW_ROWS = 1_000
"""Up to this many rows, files are 10 to 20 % smaller without dictionaries; stronger compression costs under 1 ms."""
FILE_BYTES = 32 * 1024 * 1024
"""A file of streamed rows ends at about this size, because the writer holds it in memory."""
ROWS_PER_GROUP = 16_384
"""The writer holds a group of rows uncompressed: 12 MB with 89 numbers per row."""
FLUSHED = "_driftline_flushed"
"""File of a folder's log: the folder's inode and the newest version that is on the disk. Readers of Delta skip it."""


def open_table(location: str) -> DeltaTable | None:
    """Return the table's newest version, or None when there is no table."""
    from deltalake import DeltaTable, exceptions

    with storage_errors(location, "cannot be opened"):
        for is_last in (False, True):
            try:
                return DeltaTable(location)
            except exceptions.TableNotFoundError:
                return None
            except exceptions.DeltaError:
                if is_last or not torn.undo_torn_commits(location, with_files=False):
                    raise
    return None


def open_or_create(location: str, empty: pl.DataFrame, partition_by: list[str] | None = None) -> DeltaTable:
    """Return the table; create it with the schema of an empty frame when there is none."""
    from deltalake import write_deltalake

    def attempt() -> DeltaTable:
        table = open_table(location)
        if table is None:
            # Another process may create the table at the same moment.
            write_deltalake(location, empty, mode="ignore", partition_by=partition_by, configuration=CONFIGURATION)
            table = open_table(location)
        if table is None:
            raise TableProblem(f"the table at {location} was created and cannot be found; is something removing it?")
        return table

    return retry(location, attempt)


@contextmanager
def writing(location: str, empty: pl.DataFrame, partition_by: list[str] | None = None) -> Iterator[DeltaTable]:
    """Yield the table's newest version for one write, like `open_or_create`; the next write goes on with its handle."""
    import obstore
    from deltalake import exceptions

    table = None
    # A log that cannot be read on is repaired where the table is opened, or the reason is named there.
    with storage_errors(location, "cannot be opened"), contextlib.suppress(exceptions.DeltaError):
        # To replace a key takes 37 requests on S3 instead of 69, and 45 % of the time; in a folder 74 %.
        table = handles.take(location)
    if table is None:
        table = open_or_create(location, empty, partition_by)
    yield table
    # The write is done, whatever happens now; the next one would open the table.
    with contextlib.suppress(exceptions.DeltaError, obstore.exceptions.BaseError, OSError):
        handles.keep(location, table, objects.mark(open_store(location), handles.log_file(table.version())))


def commit(
    location: str,
    table: DeltaTable,
    data: Any,
    metadata: Mapping[str, str] | None = None,
    *,
    files: int = 1,
    properties: WriterProperties | None = None,
    **options: Any,
) -> int:
    """Write rows in one commit and return the table version it created.

    Args:
        table: opened before the caller looked at what it replaces.
        data: a frame, or anything with `properties` for its number of rows.
        metadata: texts by name that the log stores with the commit.
        files: how many files the rows will be spread over, about equally.
        options: `mode`, `predicate`, `schema_mode` of `deltalake.write_deltalake`.
    """
    from deltalake import CommitProperties, write_deltalake

    # Others commit at the same time, so our version is the one whose log has our name.
    name = uuid.uuid4().hex
    commit_properties = CommitProperties(custom_metadata={**(metadata or {}), COMMIT_ID: name})
    properties = properties or writer(data.height // files)
    write_deltalake(table, data, commit_properties=commit_properties, writer_properties=properties, **options)
    for version in range(table.version(), -1, -1):
        if any(action.commit_info.id == name for action in actions(location, version)):
            make_durable(location, version)
            return version
    raise TableProblem(f"our commit is not in the log of {location}; is something removing its files?")


def try_commit(
    location: str,
    table: DeltaTable,
    stream: Any,
    metadata: Mapping[str, str] | None = None,
    *,
    rows: int,
    **options: Any,
) -> int | None:
    """Write a stream of rows in one commit, holding some of them in memory; return the version it created.

    Args:
        table: at the version that the caller started from.
        stream: Arrow record batches, by Arrow's C interface.
        rows: of all batches.

    Returns:
        None, and nothing changed, when another writer has committed to the same rows since that version.

    Raises:
        TableProblem: storage failed; nothing changed.
    """
    from deltalake import exceptions

    options = {"target_file_size": FILE_BYTES, **options}
    try:
        with storage_errors(location, "could not be written"):
            return commit(location, table, stream, metadata, properties=writer(rows, ROWS_PER_GROUP), **options)
    except exceptions.CommitFailedError:
        return None


def writer(rows: int, max_row_group_size: int | None = None) -> WriterProperties:
    """Return the Parquet settings for files of about this many rows."""
    from deltalake import ColumnProperties, WriterProperties

    is_small = rows <= FEW_ROWS
    # Nothing is looked up by statistics, and they are a quarter of a small file.
    columns = ColumnProperties(statistics_enabled="NONE", dictionary_enabled=not is_small)
    return WriterProperties(
        compression="ZSTD",
        compression_level=9 if is_small else None,
        default_column_properties=columns,
        max_row_group_size=max_row_group_size,
    )


def make_durable(location: str, version: int) -> None:
    """Flush a version of a folder's table to disk: its files, its log, and their folders.

    Includes the earlier versions that nobody has noted as flushed, back to the newest checkpoint: their writers may
    have been killed before they flushed them.
    """
    if not objects.is_folder(location):
        return
    folder = Path(location.removeprefix("file://")).absolute()
    note = folder / torn.LOG / FLUSHED
    first = max(0, version - CHECKPOINT_INTERVAL, min(version, _flushed(note) + 1))
    logs = [folder / torn.LOG / f"{number:020d}.json" for number in range(first, version + 1)]
    added = [
        folder / unquote(action.add.path)
        for number, log in zip(range(first, version + 1), logs, strict=True)
        if log.exists()
        for action in actions(location, number)
        if action.add
    ]
    # Row R1 (cut power) found a checkpoint on the disk that held a commit whose files were not.
    checkpoints = [file for log in logs if (file := log.with_suffix(".checkpoint.parquet")).exists()]
    checkpoints += [folder / torn.LOG / "_last_checkpoint"] if checkpoints else []
    with storage_errors(location, "could not be flushed to disk"):
        # Files first: a log that names files which are not on the disk is a damaged table after a power cut.
        durable.sync(added)
        durable.sync([*logs, *checkpoints])
    # Not flushed itself: where the number is lost or cut short, the next writer flushes more. The write is done.
    with contextlib.suppress(OSError):
        note.write_text(f"{note.parent.stat().st_ino} {version}", encoding="utf-8")


def _flushed(note: Path) -> int:
    """Return the newest version that a note says is on the disk; -1 where it says nothing of this folder."""
    try:
        folder, version = note.read_text(encoding="utf-8").split()
        return int(version) if int(folder) == note.parent.stat().st_ino else -1  # a copy was flushed by nobody
    except (OSError, ValueError):
        return -1


def actions(location: str, version: int) -> list[torn.Action]:
    """Return the actions of one version of a table's log."""
    import obstore

    with storage_errors(location, "cannot be read"):
        log = obstore.get(open_store(location), handles.log_file(version)).bytes()
    return torn.actions_of(bytes(log))


def files_by_key(location: str, version: int) -> dict[str, list[str]]:
    """Return the files that one version added, relative to the table's location, by partition key."""
    paths_by_key: dict[str, list[str]] = {}
    for action in actions(location, version):
        if action.add:
            paths_by_key.setdefault(action.add.partition_values["key"], []).append(action.add.path)
    return {key: sorted(paths) for key, paths in paths_by_key.items()}


@contextmanager
def storage_errors(location: str, failure: str) -> Iterator[None]:
    """Raise `TableProblem` with a readable sentence for storage errors of a library; let a lost commit race through."""
    import obstore
    from deltalake import exceptions

    try:
        yield
    except exceptions.CommitFailedError:
        raise
    except (exceptions.DeltaError, obstore.exceptions.BaseError, OSError) as error:
        raise TableProblem(f"{location} {failure}: {reason(location, error)}.") from error


def retry(location: str, attempt: Callable[[], Result], table: DeltaTable | None = None) -> Result:
    """Call `attempt` and return its result; repeat it while concurrent writers win.

    Args:
        table: which `attempt` commits to; before it is repeated, the table is brought to its newest version.

    Raises:
        TableProblem: after `COMMIT_ATTEMPTS`, or when storage fails (full disk, no permission, unreachable);
            the table is unchanged.
    """
    from deltalake import exceptions

    for number in range(1, COMMIT_ATTEMPTS + 1):
        try:
            if number > 1 and table is not None:
                table.update_incremental()
            return attempt()
        except exceptions.CommitFailedError as error:
            if number == COMMIT_ATTEMPTS:
                raise TableProblem(
                    f"{location} could not be written in {number} attempts, others kept writing the same keys: "
                    f"{reason(location, error)}."
                ) from error
            time.sleep(random.uniform(0.1, 1.0) * min(LONGEST_WAIT_S, 0.01 * 2**number))
        except (exceptions.DeltaError, OSError) as error:
            raise TableProblem(
                f"{location} could not be written and stays as it was: {reason(location, error)}."
            ) from error
    raise AssertionError("unreachable")
