"""Append predictions to a file before their answers leave.

Belongs here: one file a process, whole records, what happens on a full disk. Does not belong here: what a record
holds (`predict`), or reading the log (the stage `predictions`, which counts a prediction id once and passes over a
last line without its line end: nobody was answered for it).

Durability: a record is handed to the kernel by one `write` before its answer is sent, so a killed process loses
nothing that was acknowledged. `fdatasync` runs beside the requests, at each poll of the release ledger: a machine
that loses power may lose the answers of the last few seconds, and no more.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

FILE_BYTES_MAX = 64 * 1024 * 1024


class LogProblem(Exception):
    """Records that could not be written; their answers must not be given."""


class PredictionLog:
    """The prediction log of this process: files of one folder, opened when the first record comes."""

    def __init__(self, folder: Path, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        """Prepare the log; nothing is created yet.

        Args:
            folder: of the product; made when absent.
            file_bytes_max: from this size on the next record begins a new file.
        """
        self.folder = folder
        self._file_bytes_max = file_bytes_max
        self._descriptor: int | None = None
        self._bytes = 0
        self._is_dirty = False

    def append(self, records: bytes | bytearray) -> None:
        """Append whole records, each with its line end, by one write.

        Raises:
            LogProblem: when not every byte was taken, for example on a full disk; nothing is left behind.
        """
        try:
            descriptor = self._open()
            written = os.write(descriptor, records)
        except OSError as problem:
            raise LogProblem(f"{self.folder} takes no record: {problem.strerror}.") from problem
        if written < len(records):
            self._take_back(descriptor)
            raise LogProblem(f"{self.folder} took {written} of {len(records)} bytes; the disk is full.")
        self._bytes += written
        self._is_dirty = True

    def sync(self) -> None:
        """Force what was appended onto the disk. Slow: call it from a thread.

        Raises:
            LogProblem: when the disk fails.
        """
        descriptor = self._descriptor
        if self._is_dirty and descriptor is not None:
            self._is_dirty = False
            try:
                os.fdatasync(descriptor)
            except OSError as problem:
                if descriptor == self._descriptor:
                    raise LogProblem(f"{self.folder} cannot be synced: {problem.strerror}.") from problem

    def close(self) -> None:
        """Close the file; the next record would begin another."""
        if self._descriptor is not None:
            self.sync()
            os.close(self._descriptor)
        self._descriptor, self._bytes = None, 0

    def _open(self) -> int:
        if self._descriptor is not None and self._bytes >= self._file_bytes_max:
            self.close()
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            place = self.folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
            self._descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            self._bytes = 0
        return self._descriptor

    def _take_back(self, descriptor: int) -> None:
        """Cut a half-written record off; if even that fails, leave the file for a new one."""
        try:
            os.ftruncate(descriptor, self._bytes)
        except OSError:
            os.close(descriptor)
            self._descriptor, self._bytes = None, 0
