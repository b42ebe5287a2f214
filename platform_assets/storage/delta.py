"""Open Delta tables and commit to them, retrying what a concurrent writer beat us to.

Belongs here: the few calls into deltalake. Does not belong here: keys, records, what a table means.

Tables never clean their own log (`upkeep.py` does, while nobody else may need it) and keep no column statistics, for
everything is found by key. Their files are small, so most of a file is what Parquet says about each column.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import polars as pl

from platform_assets.storage import durable, objects, torn
from platform_assets.storage.objects import open_store, reason
from platform_assets.storage.problems import TableProblem

if TYPE_CHECKING:
    from deltalake import DeltaTable, WriterProperties

Result = TypeVar("Result")

COMMIT_ATTEMPTS = 20
LONGEST_WAIT_S = 0.5
CHECKPOINT_INTERVAL = 10
CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),
    "delta.dataSkippingNumIndexedCols": "0",
    "delta.enableExpiredLogCleanup": "false",
}
COMMIT_ID = "driftline_commit"
FEW_ROWS = 1_000
"""Up to which a file is a tenth to a fifth smaller without dictionaries, and packed harder for under a millisecond."""
_durable: dict[str, int] = {}
"""The newest version of each table that this process has brought to the disk."""


def open_table(place: str) -> DeltaTable | None:
    """Return the table at a place, at its newest version, or None when there is none."""
    from deltalake import DeltaTable, exceptions

    with storage_errors(place, "cannot be opened"):
        for is_last in (False, True):
            try:
                return DeltaTable(place)
            except exceptions.TableNotFoundError:
                return None
            except exceptions.DeltaError:
                if is_last or not torn.undo_torn_commits(place, with_files=False):
                    raise
    return None


def open_or_create(place: str, empty: pl.DataFrame, partition_by: list[str] | None = None) -> DeltaTable:
    """Return the table at a place, made with the schema of an empty frame when there is none."""
    from deltalake import write_deltalake

    def attempt() -> DeltaTable:
        table = open_table(place)
        if table is None:
            write_deltalake(place, empty, mode="ignore", partition_by=partition_by, configuration=CONFIGURATION)
            table = open_table(place)
        if table is None:
            raise TableProblem(f"the table at {place} was made and cannot be found; is something removing it?")
        return table

    return retry(place, attempt)


def commit(
    place: str,
    table: DeltaTable,
    frame: pl.DataFrame,
    about: Mapping[str, str] | None = None,
    *,
    files: int = 1,
    **options: Any,
) -> int:
    """Write a frame in one commit and return the table version that it made.

    Args:
        place: where the table lies.
        table: the table, opened before the caller looked at what it replaces.
        frame: the rows.
        about: texts by name that the log keeps with the commit.
        files: into how many the rows will go, about equally.
        options: `mode`, `predicate`, `schema_mode` of `deltalake.write_deltalake`.
    """
    from deltalake import CommitProperties, write_deltalake

    name = uuid.uuid4().hex
    properties = CommitProperties(custom_metadata={**(about or {}), COMMIT_ID: name})
    how = writer(frame.height // files)
    write_deltalake(table, frame, commit_properties=properties, writer_properties=how, **options)
    version = table.version()
    while version >= 0:
        if any(action.commit_info.id == name for action in actions(place, version)):
            make_durable(place, version)
            return version
        version -= 1
    raise TableProblem(f"our commit is not in the log of {place}; is something removing its files?")


def writer(rows: int) -> WriterProperties:
    """Return how files of so many rows are written."""
    from deltalake import ColumnProperties, WriterProperties

    is_small = rows <= FEW_ROWS
    # Nothing is found by statistics, and they are a quarter of a small file.
    columns = ColumnProperties(statistics_enabled="NONE", dictionary_enabled=not is_small)
    return WriterProperties(
        compression="ZSTD", compression_level=9 if is_small else None, default_column_properties=columns
    )


def make_durable(place: str, version: int) -> None:
    """Bring a version of a folder's table to the disk: its files, its log, and their folders.

    Versions before it that this process has not brought there are too, back to the newest checkpoint: their writers
    may have been killed in between.
    """
    if not objects.is_folder(place):
        return
    folder = Path(place.removeprefix("file://")).absolute()
    reached = _durable.get(place, -1)
    # A lower version is one of another table, made where the old one was removed.
    first = max(0, version - CHECKPOINT_INTERVAL, min(version, reached + 1 if reached <= version else 0))
    logs = [folder / "_delta_log" / f"{number:020d}.json" for number in range(first, version + 1)]
    added = [
        folder / unquote(action.add.path)
        for number, log in zip(range(first, version + 1), logs, strict=True)
        if log.exists()
        for action in actions(place, number)
        if action.add
    ]
    checkpoints = [file for log in logs if (file := log.with_suffix(".checkpoint.parquet")).exists()]
    checkpoints += [folder / "_delta_log" / "_last_checkpoint"] if checkpoints else []
    with storage_errors(place, "could not be brought to the disk"):
        durable.sync(added)
        durable.sync([*logs, *checkpoints])
    _durable[place] = version


def actions(place: str, version: int) -> list[torn.Action]:
    """Return the actions of one version of a table's log."""
    import obstore

    with storage_errors(place, "cannot be read"):
        log = obstore.get(open_store(place), f"_delta_log/{version:020d}.json").bytes()
    return torn.actions_of(bytes(log))


def files_by_key(place: str, version: int) -> dict[str, list[str]]:
    """Return the files that one version added, below the table's place, by partition key."""
    found: dict[str, list[str]] = {}
    for action in actions(place, version):
        if action.add:
            found.setdefault(action.add.partition_values["key"], []).append(action.add.path)
    return {key: sorted(paths) for key, paths in found.items()}


@contextmanager
def storage_errors(place: str, what: str) -> Iterator[None]:
    """Raise a sentence, `TableProblem`, where a library raises that storage fails; a beaten commit stays what it is."""
    import obstore
    from deltalake import exceptions

    try:
        yield
    except exceptions.CommitFailedError:
        raise
    except (exceptions.DeltaError, obstore.exceptions.BaseError, OSError) as error:
        raise TableProblem(f"{place} {what}: {reason(place, error)}.") from error


def retry(place: str, attempt: Callable[[], Result]) -> Result:
    """Return what an attempt returns; repeat it while concurrent writers beat it.

    Raises:
        TableProblem: after `COMMIT_ATTEMPTS`, or when storage fails (full disk, no permission, unreachable);
            the table then holds what it held before.
    """
    from deltalake import exceptions

    for tried in range(1, COMMIT_ATTEMPTS + 1):
        try:
            return attempt()
        except exceptions.CommitFailedError as error:
            if tried == COMMIT_ATTEMPTS:
                raise TableProblem(
                    f"{place} could not be written in {tried} attempts, others kept writing the same keys: "
                    f"{reason(place, error)}."
                ) from error
            time.sleep(random.uniform(0.1, 1.0) * min(LONGEST_WAIT_S, 0.01 * 2**tried))
        except (exceptions.DeltaError, OSError) as error:
            raise TableProblem(f"{place} could not be written and stays as it was: {reason(place, error)}.") from error
    raise AssertionError("unreachable")
