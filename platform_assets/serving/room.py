"""Watch the room of the volume that holds the prediction log.

A full `emptyDir` gets its pod evicted, with every answer that was not shipped. So a replica stops taking requests
before that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


class Room:
    """The room of a volume.

    Attributes:
        problem: why no requests should be taken; None while there is room.
    """

    def __init__(self, folder: Path, limit_bytes: int | None, share: float) -> None:
        """Prepare.

        Args:
            folder: everything in it counts.
            limit_bytes: what the volume may hold (an `emptyDir`'s sizeLimit); None: the size of its file system.
            share: of the limit, from which on there is a problem.
        """
        self.problem: str | None = None
        self._folder, self._limit_bytes, self._share = folder, limit_bytes, share

    def check(self) -> None:
        """Measure; `problem` has the result. One call of the kernel per file."""
        used = _used_bytes(self._folder)
        try:
            limit = self._limit_bytes or shutil.disk_usage(self._folder).total
        except OSError as problem:
            self.problem = f"the room of {self._folder} cannot be measured: {problem.strerror}."
            return
        full = (
            f"{self._folder} holds {used} of at most {limit} bytes; from {self._share:.0%} on this replica takes no "
            "requests, because its pod would be evicted with every answer that is not in the store."
        )
        self.problem = full if used >= self._share * limit else None


def _used_bytes(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                total += 512 * Path(path, name).lstat().st_blocks
    return total
