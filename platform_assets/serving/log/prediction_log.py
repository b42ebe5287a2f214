"""Append predictions to a file before their answers are sent; one file per process, whole records only.

The stage `predictions` reads the log. It counts a prediction id once, and ignores a last line without its line end:
that prediction was not answered.

Durability: a record is handed to the kernel by one `write` before its answer is sent, so a killed process loses nothing
that was acknowledged. `check` forces it to the disk, in a thread of its own: a machine that loses power may lose the
answers of the last few seconds, and no more. A file that somebody removed, renamed or changed is abandoned, and the
next record starts another.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from platform_assets.base import private_folders
from platform_assets.base.problems import Problem

SUFFIX = ".jsonl"
FILE_BYTES_MAX = 16 * 1024 * 1024
"""Small, because a file that is shipped is removed only when all of it is in the store."""
ROOM_BYTES = 4 * 1024 * 1024
"""Bytes that must be free for the log to be healthy; a request's records are smaller."""


class LogProblem(Problem):
    """Records could not be written; their answers must not be given."""


class Stream:
    """One file of the log.

    Attributes:
        path: its name is unique over machines: the time, the process id and `PredictionLog.mark`.
        bytes: length of the records that were written whole. A full disk may leave more in the file for a moment.
        is_ended: whether no further record is appended.
    """

    def __init__(self, path: Path, *, is_ended: bool = False) -> None:
        self.path, self.bytes, self.is_ended = path, 0, is_ended

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def began_at(self) -> datetime:
        """When the file was created, by its name."""
        return datetime.fromtimestamp(int(self.name.partition("-")[0]) / 1e9, UTC)


class PredictionLog:
    """The prediction log of this process: files in one folder, opened with the first record.

    Attributes:
        server: name of the machine or pod that this process belongs to.
        problem: why records cannot be written, or may be lost; None if there is no problem.
        mark: 8 random hexadecimal digits that tell this process from all others with its id.
        streams: the files so far, oldest first; whoever ships one removes it.
        claim: called before a file is created; may raise `OSError`.
        reserve: called with the number of bytes before they are written; may raise `LogProblem`.
    """

    def __init__(self, folder: Path, file_bytes_max: int = FILE_BYTES_MAX, server: str | None = None) -> None:
        """Prepare the log; nothing is created yet.

        Args:
            folder: of the product; created if absent.
            file_bytes_max: from this size on, the next record starts a new file.
            server: None for the host's name.
        """
        self.folder = folder
        self.server = server or socket.gethostname()
        self.problem: str | None = None
        self.mark = secrets.token_hex(4)
        self.streams: list[Stream] = []
        self.claim: Callable[[], None] = lambda: None
        self.reserve: Callable[[int], None] = lambda _: None
        self._file_bytes_max = file_bytes_max
        self._descriptor: int | None = None
        self._stream, self._identity = Stream(folder), (0, 0)
        self._is_dirty = self._was_tested = False
        self._closing: deque[int] = deque()

    def append(self, records: bytes | bytearray) -> None:
        """Append whole records, each with its line end, by one write.

        Raises:
            LogProblem: not every byte was written, for example on a full disk; no part of a record is left behind.
        """
        self.reserve(len(records))
        try:
            # A new file, if there is none, it is full, or somebody changed it.
            is_over = self._stream.bytes >= self._file_bytes_max or self._stream.is_ended
            if self._descriptor is not None and (is_over or not self._is_ours()):
                self._end_file()
            if self._descriptor is None:
                private_folders.make_folder(self.folder)
                self.claim()
                path = self.folder / f"{time.time_ns()}-{os.getpid()}-{self.mark}{SUFFIX}"
                self._descriptor = os.open(
                    path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, private_folders.FILE_MODE
                )
                opened = os.fstat(self._descriptor)
                self._stream, self._identity = Stream(path), (opened.st_ino, opened.st_dev)
                self.streams.append(self._stream)
            descriptor = self._descriptor
            # Before the answer is sent, for 10 us: a log written in the background lost 37 % of its records over kills.
            written = os.write(descriptor, records)
        except OSError as problem:
            self.problem = f"{self.folder} cannot be written: {problem.strerror}."
            raise LogProblem(self.problem) from problem
        if written < len(records):  # a disk that fills up takes a part, and raises nothing
            try:
                os.ftruncate(descriptor, self._stream.bytes)
            except OSError:  # the half-written record stays, so the file is abandoned
                self._end_file()
            self.problem = f"{self.folder} took {written} of {len(records)} bytes; the disk is full."
            raise LogProblem(self.problem)
        self._stream.bytes += written
        self._is_dirty = True

    def check(self) -> None:
        """Force appended records to the disk, and test whether records can be written; `problem` has the result.

        As slow as the disk: call it from a thread of its own.
        """
        before = self.problem
        try:
            self.sync()
            folder = self.folder
            while not folder.exists():  # it is made with the first record
                folder = folder.parent
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
                self.problem = f"{self.folder} cannot be written: less than {ROOM_BYTES} bytes are free on its disk."
                return
            if before is not None or not self._was_tested:
                # As many bytes as must be free are written, and removed again.
                private_folders.make_folder(self.folder)
                path = self.folder / f".room-{os.getpid()}"
                try:
                    with path.open("wb") as file:
                        file.write(bytes(ROOM_BYTES))
                        file.flush()
                        os.fsync(file.fileno())
                finally:
                    path.unlink(missing_ok=True)
                self._was_tested = True
        except LogProblem as problem:
            self.problem = str(problem)
        except OSError as problem:
            self.problem = f"{self.folder} cannot be written: {problem.strerror}."
        else:
            if self.problem is before:  # otherwise a request failed meanwhile
                self.problem = None

    def sync(self) -> None:
        """Force appended records to the disk. Slow: call it from a thread.

        Raises:
            LogProblem: the disk fails.
        """
        try:
            while self._closing:
                descriptor = self._closing.popleft()
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
            descriptor_now = self._descriptor
            if self._is_dirty and descriptor_now is not None:
                # Cleared before the sync: a record that is appended meanwhile is for the next one.
                self._is_dirty = False
                os.fdatasync(descriptor_now)
        except OSError as problem:
            raise LogProblem(f"{self.folder} cannot be synced: {problem.strerror}.") from problem

    def close(self) -> None:
        """Close the file, synced; the next record would start another."""
        self._end_file()
        self.sync()

    def _is_ours(self) -> bool:
        """Return whether the file is where it was created and holds what was appended. Costs a microsecond."""
        try:
            current = os.stat(self._stream.path)  # noqa: PTH116  # Path.stat takes twice the time
        except OSError:
            return False
        return (current.st_ino, current.st_dev, current.st_size) == (*self._identity, self._stream.bytes)

    def _end_file(self) -> None:
        """Start no further record in this file; the next sync closes it."""
        if self._descriptor is not None:
            self._closing.append(self._descriptor)  # the loop must not wait for the disk, so `sync` closes it
        self._descriptor = None
        self._stream.is_ended = True


class Unlogged(PredictionLog):
    """A log that keeps nothing: no caller gets these answers."""

    def append(self, records: bytes | bytearray) -> None:
        """Drop the records."""
