"""Bring what was written to a folder onto its disk, before anything that points to it is written.

A machine that loses power keeps names of files whose bytes it had not written yet, and loses names of files whose
bytes it had. So the bytes of a file reach the disk before it gets its name, and its folders before the write is called
done. A bucket needs none of this: what S3 has confirmed is stored. Standard library only, for serving imports it.
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
    """How often this process has waited for the disk, and how long: what safety costs."""

    calls: int = 0
    seconds: float = 0.0


disk_waits = DiskWaits()
_NOT_KNOWN = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot bring a folder to the disk."""
_reached: set[Path] = set()
"""Folders whose own names this process has brought to the disk, up to the root of the file system."""


def create(place: Path, data: bytes) -> bool:
    """Create a file unless one is there, and tell whether it is this call's; on the disk either way.

    An empty file counts as absent: nobody writes one, but a lost power leaves one behind.

    Args:
        place: the file's path; its folders are made.
        data: its bytes.

    Raises:
        OSError: it could not be written; then nothing new is at `place`.
    """
    with _written(place, data) as waiting:
        is_ours = _linked(waiting, place) or (bool(data) and _removed_if_empty(place) and _linked(waiting, place))
    _sync_folder(place.parent)
    return is_ours


def replace(place: Path, data: bytes) -> None:
    """Put a file in the place of another, on the disk when this returns.

    Raises:
        OSError: it could not be written; then the old one stands.
    """
    with _written(place, data) as waiting:
        waiting.replace(place)
    _sync_folder(place.parent)


def sync(files: Iterable[Path]) -> None:
    """Bring files that others wrote to the disk, then the folders that lead to them; one that is gone is passed over.

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
    """Let one process at a time in; the lock ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _written(place: Path, data: bytes) -> Iterator[Path]:
    """Yield a file beside the place whose bytes are on the disk; it is gone afterwards, unless it was moved."""
    place.parent.mkdir(parents=True, exist_ok=True)
    # The client of object stores hides such names when it lists a folder.
    waiting = place.with_name(f"{place.name}#{uuid.uuid4().int}")
    try:
        with waiting.open("xb") as file:
            file.write(data)
            file.flush()
            _wait_for_disk(file.fileno())
        yield waiting
    finally:
        waiting.unlink(missing_ok=True)


def _linked(file: Path, place: Path) -> bool:
    try:
        os.link(file, place)
    except FileExistsError:
        return False
    return True


def _removed_if_empty(place: Path) -> bool:
    """Remove a file without bytes, and tell whether the place is free now.

    Nobody can put another file there while the empty one is there, and only who holds the lock removes one.
    """
    with locked(place.parent):
        try:
            if not place.is_file() or place.stat().st_size:
                return False
            place.unlink()
        except FileNotFoundError:
            return True
    return True


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, and its own name the first time."""
    try:
        _sync(folder)
    except PermissionError:  # not ours to read, so it was there before us
        return
    if folder not in _reached and folder != folder.parent:
        _sync_folder(folder.parent)
        _reached.add(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _wait_for_disk(descriptor)
    finally:
        os.close(descriptor)


def _wait_for_disk(descriptor: int) -> None:
    began = time.perf_counter()
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_KNOWN:
            raise
    disk_waits.calls += 1
    disk_waits.seconds += time.perf_counter() - began
