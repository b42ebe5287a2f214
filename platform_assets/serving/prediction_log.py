"""Append predictions to a file before their answers leave.

Belongs here: one file a process, whole records, what happens on a full disk. Does not belong here: what a record
holds (`predict`), or reading the log (the stage `predictions`, which counts a prediction id once and passes over a
last line without its line end: nobody was answered for it).

Durability: a record is handed to the kernel by one `write` before its answer is sent, so a killed process loses
nothing that was acknowledged. `check` forces it onto the disk, in a thread of its own: a machine that loses power may
lose the answers of the last few seconds, and no more. A file that was removed, renamed or changed by somebody else is
left, and the next record begins another.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

from platform_assets.problems import Problem

FILE_BYTES_MAX = 64 * 1024 * 1024
ROOM_BYTES = 4 * 1024 * 1024
"""How much must be free for the log to be well; a request's records are smaller."""


class LogProblem(Problem):
    """Records that could not be written; their answers must not be given."""


class PredictionLog:
    """The prediction log of this process: files of one folder, opened when the first record comes.

    Attributes:
        folder: of the product.
        problem: why records are not taken, or could be lost; None while all is well.
    """

    def __init__(self, folder: Path, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        """Prepare the log; nothing is created yet.

        Args:
            folder: of the product; made when absent.
            file_bytes_max: from this size on the next record begins a new file.
        """
        self.folder = folder
        self.problem: str | None = None
        self._file_bytes_max = file_bytes_max
        self._descriptor: int | None = None
        self._place = folder
        self._bytes = 0
        self._is_dirty = False
        self._left: deque[int] = deque()

    def append(self, records: bytes | bytearray) -> None:
        """Append whole records, each with its line end, by one write.

        Raises:
            LogProblem: when not every byte was taken, for example on a full disk; nothing is left behind.
        """
        try:
            descriptor = self._open()
            written = os.write(descriptor, records)
        except OSError as problem:
            self.problem = f"{self.folder} takes no record: {problem.strerror}."
            raise LogProblem(self.problem) from problem
        if written < len(records):
            self._take_back(descriptor)
            self.problem = f"{self.folder} took {written} of {len(records)} bytes; the disk is full."
            raise LogProblem(self.problem)
        self._bytes += written
        self._is_dirty = True

    def check(self) -> None:
        """Force what was appended onto the disk, and find out whether records can be taken; `problem` says so.

        Slow, and as long as the disk wants: call it from a thread of its own.
        """
        before = self.problem
        try:
            self.sync()
            free = _free_bytes(self.folder)
            if free < ROOM_BYTES:
                self.problem = f"{self.folder} takes no record: less than {ROOM_BYTES} bytes are free on its disk."
                return
            if before is not None:
                self._try_out()
        except LogProblem as problem:
            self.problem = str(problem)
        except OSError as problem:
            self.problem = f"{self.folder} takes no record: {problem.strerror}."
        else:
            if self.problem is before:  # otherwise a request failed meanwhile
                self.problem = None

    def sync(self) -> None:
        """Force what was appended onto the disk. Slow: call it from a thread.

        Raises:
            LogProblem: when the disk fails.
        """
        try:
            while self._left:
                descriptor = self._left.popleft()
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
            descriptor_now = self._descriptor
            if self._is_dirty and descriptor_now is not None:
                self._is_dirty = False
                os.fdatasync(descriptor_now)
        except OSError as problem:
            raise LogProblem(f"{self.folder} cannot be synced: {problem.strerror}.") from problem

    def close(self) -> None:
        """Close the file, synced; the next record would begin another."""
        self._leave()
        self.sync()

    def _open(self) -> int:
        """Return the file's descriptor; make a file where there is none, it is full, or it is not ours any more."""
        if self._descriptor is not None and (self._bytes >= self._file_bytes_max or not self._is_ours()):
            self._leave()
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._place = self.folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
            self._descriptor = os.open(self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            self._bytes = 0
        return self._descriptor

    def _is_ours(self) -> bool:
        """Tell whether the file lies where it was made and holds what was appended. Costs two microseconds."""
        assert self._descriptor is not None
        own = os.fstat(self._descriptor)
        try:
            found = os.stat(self._place)  # noqa: PTH116  # Path.stat takes twice the time
        except OSError:
            return False
        return (found.st_ino, found.st_dev, found.st_size) == (own.st_ino, own.st_dev, self._bytes)

    def _take_back(self, descriptor: int) -> None:
        """Cut a half-written record off; if even that fails, leave the file for a new one."""
        try:
            os.ftruncate(descriptor, self._bytes)
        except OSError:
            self._leave()

    def _leave(self) -> None:
        """Begin no other record in this file; whoever syncs closes it."""
        if self._descriptor is not None:
            self._left.append(self._descriptor)
        self._descriptor, self._bytes = None, 0

    def _try_out(self) -> None:
        """Write as much as must be free, and remove it again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / f".room-{os.getpid()}"
        try:
            with place.open("wb") as file:
                file.write(bytes(ROOM_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            place.unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    """Return how much is free on the disk of a folder, which need not be there yet."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
