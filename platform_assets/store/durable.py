"""Flush files to a folder's disk before anything that points to them is written.

After a power loss, a disk may have the name of a file without its bytes, or its bytes without its name. So a file's
bytes reach the disk before the file gets its name, and its folders before the write counts as done. A bucket needs
none of this: what S3 has confirmed is stored. Standard library only, because serving imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class DiskWaits:
    """How often and how long this process has waited for the disk: the price of durability."""

    calls: int = 0
    seconds: float = 0.0


disk_waits = DiskWaits()
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
"""Errors of file systems that cannot flush a folder."""
_flushed: set[Path] = set()
"""Folders whose own names this process has flushed, up to the root of the file system."""


def create(path: Path, data: bytes) -> bool:
    """Create a file unless it exists; return whether this call created it. On disk either way.

    An empty file counts as absent: we never write one, but a power loss can leave one behind.

    Args:
        path: missing folders are created.

    Raises:
        OSError: it could not be written; nothing new is at `path`.
    """
    with _temporary_file(path, data) as temporary:
        is_ours = _try_link(temporary, path) or (bool(data) and _remove_if_empty(path) and _try_link(temporary, path))
    _sync_folder(path.parent)
    return is_ours


def replace(path: Path, data: bytes) -> None:
    """Replace a file, atomically; on disk when this returns.

    Raises:
        OSError: it could not be written; the old file is unchanged.
    """
    with _temporary_file(path, data) as temporary:
        temporary.replace(path)
    _sync_folder(path.parent)


def sync(files: Iterable[Path]) -> None:
    """Flush files that others wrote, then the folders that lead to them; missing files are skipped.

    Raises:
        OSError: the disk refuses.
    """
    folders = set()
    for file in files:
        try:
            _sync(file)
        except FileNotFoundError:
            continue
        folders.add(file.parent)
    for folder in sorted(folders):
        _sync_folder(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the kernel drops it when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _temporary_file(path: Path, data: bytes) -> Iterator[Path]:
    """Yield a temporary file next to `path` whose bytes are on disk; delete it afterwards unless it was moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # obstore hides such names when it lists a folder.
    temporary = path.with_name(f"{path.name}#{uuid.uuid4().int}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            _wait_for_disk(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _try_link(file: Path, path: Path) -> bool:
    try:
        # Unlike a rename, a link fails where the name exists, so two writers cannot both succeed.
        os.link(file, path)
    except FileExistsError:
        return False
    return True


def _remove_if_empty(path: Path) -> bool:
    """Remove an empty file; return whether the path is free now.

    Nobody can create another file while the empty one exists, and only the lock's holder removes one.
    """
    with locked(path.parent):
        try:
            if not path.is_file() or path.stat().st_size:
                return False
            path.unlink()
        except FileNotFoundError:
            return True
    return True


def _sync_folder(folder: Path) -> None:
    """Flush a folder's names, and the first time its own name in its parent."""
    try:
        _sync(folder)
    except PermissionError:  # not ours to read, so it existed before us
        return
    if folder not in _flushed and folder != folder.parent:
        _sync_folder(folder.parent)
        _flushed.add(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _wait_for_disk(descriptor)
    finally:
        os.close(descriptor)


def _wait_for_disk(descriptor: int) -> None:
    started = time.perf_counter()
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    disk_waits.calls += 1
    disk_waits.seconds += time.perf_counter() - started
