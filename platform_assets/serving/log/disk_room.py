"""Watch the room of the volume that holds the prediction log.

A full `emptyDir` gets its pod evicted, with every answer that was not shipped. So a replica stops taking requests
before that, and refuses those that still reach it: callers with open connections do not look at readiness.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from platform_assets.serving.log.prediction_log import LogProblem

SHARE = 0.8
"""Share of the room from which on a service that ships its log is not ready."""
LOOK_SHARE = 0.01
"""Share of the limit after which the volume is measured again."""


class DiskRoom:
    """The room of a volume.

    Attributes:
        problem: why no requests should be taken; None while there is room.
    """

    def __init__(self, folder: Path, limit_bytes: int | None, share: float) -> None:
        """Prepare.

        Args:
            folder: everything in it counts.
            limit_bytes: what the volume may hold (an `emptyDir`'s sizeLimit); None: the size of its file system.
            share: of the limit, from which on there is a problem; halfway from there to the limit, `reserve` refuses.
        """
        self.problem: str | None = None
        self._folder, self._limit_bytes, self._share = folder, limit_bytes, share
        self._used = self._limit = self._unseen = 0

    def check(self) -> None:
        """Measure; `problem` has the result. One call of the kernel per file."""
        used = 0  # bytes on the disk, of files and folders, as an eviction counts them
        for path, folders, files in os.walk(self._folder):
            for name in (*folders, *files):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    used += 512 * Path(path, name).lstat().st_blocks  # in units of 512 bytes on any file system
        try:
            # An `emptyDir` shows the size of its node's disk, not its sizeLimit.
            limit = self._limit_bytes or shutil.disk_usage(self._folder).total
        except OSError as problem:
            self.problem = f"the room of {self._folder} cannot be measured: {problem.strerror}."
            return
        full = (
            f"{self._folder} holds {used} of at most {limit} bytes; from {self._share:.0%} on this replica takes no "
            "requests, because its pod would be evicted with every answer that is not in the store."
        )
        self._used, self._limit = used, limit
        self.problem = full if used >= self._share * limit else None

    def reserve(self, count: int) -> None:
        """Count bytes that are about to be written; measures first if many were since the last time.

        Raises:
            LogProblem: with them the volume would hold too much; they must not be written.
        """
        # A look every few seconds came too late: 16 MiB filled up between two, and the pod was evicted with answers.
        if self._unseen + count > LOOK_SHARE * self._limit:
            self.check()
            self._unseen = 0
        refused_share = (1 + self._share) / 2
        if self._limit and self._used + self._unseen + count > refused_share * self._limit:
            raise LogProblem(
                f"{self._folder} holds about {self._used + self._unseen} of at most {self._limit} bytes; beyond "
                f"{refused_share:.0%} this replica writes nothing, because its pod would be evicted with every answer "
                "that is not in the store."
            )
        self._unseen += count
