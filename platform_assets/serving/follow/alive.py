"""Leave a mark on the disk while a process serves, so that the next one can tell that it died, and with which model.

A mark is a file that its process keeps locked: the kernel unlocks it however a process ends, and a process that closes
removes it. So an unlocked mark is that of a process that was killed, its time is when it was last seen alive, and its
text the model that it had in hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from platform_assets.base.private_folders import make_folder
from platform_assets.store import durable

SUFFIX = ".alive"
COUNT, DIGITS_MAX, LINE_BYTES_MAX = "deaths", 10, 4096


class InHand(msgspec.Struct, frozen=True, kw_only=True):
    """The model that a process has.

    Attributes:
        since_s: wall clock when it took the model.
        deaths: processes before it that died with this model.
    """

    digest: str
    release: int | None
    since_s: float
    deaths: int = 0


class Died(msgspec.Struct, frozen=True, kw_only=True):
    """A process that died.

    Attributes:
        seen_s: wall clock when it was last seen alive.
        had: its model; None where it had none yet, or its mark cannot be read.
    """

    seen_s: float
    had: InHand | None = None

    @property
    def seen_at(self) -> datetime:
        """When it was last seen alive, in UTC."""
        return datetime.fromtimestamp(self.seen_s, UTC)


class Mark:
    """The mark of this process in a folder that processes of one product share.

    Attributes:
        deaths: processes that died, since the folder was made. Counted on the disk, because a counter that began at 1
            in each process would not rise with the second death.
    """

    def __init__(self, folder: Path) -> None:
        """Set the folder; `begin` creates it."""
        self.deaths = 0
        self._folder = folder
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self._descriptor: int | None = None

    def begin(self) -> list[Died]:
        """Leave the mark, and remove those of processes that died; return these, the last one at the end.

        Raises:
            OSError: the folder cannot be written.
        """
        make_folder(self._folder)
        # Locked, so that two processes that start do not both count a death, nor take a new mark for a dead one.
        with durable.locked(self._folder):
            died = [item for path in self._folder.glob(f"*{SUFFIX}") if (item := _died(path)) is not None]
            count = self._folder / COUNT
            digits = count.read_bytes() if count.exists() else b""
            self.deaths = (int(digits) if digits.isdigit() and len(digits) < DIGITS_MAX else 0) + len(died)
            if died:
                count.write_text(str(self.deaths), encoding="ascii")
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return sorted(died, key=lambda item: item.seen_s)

    def hold(self, model: InHand) -> None:
        """Write the model into the mark: one line, after which a longer one's rest is cut off."""
        if self._descriptor is not None:
            line = msgspec.json.encode(model) + b"\n"
            with contextlib.suppress(OSError):  # other code reports a disk that fails
                os.pwrite(self._descriptor, line, 0)
                os.ftruncate(self._descriptor, len(line))

    def renew(self) -> None:
        """State that the process is alive."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # it only looks dead for longer than it is
                os.utime(self._descriptor)

    def end(self) -> None:
        """Remove the mark: the process ends as it should."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _died(path: Path) -> Died | None:
    """Remove the mark of a process that died, and return what it says; None if the process lives."""
    with path.open("rb") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        had = None
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            had = msgspec.json.decode(mark.readline(LINE_BYTES_MAX), type=InHand)
        path.unlink(missing_ok=True)
        return Died(seen_s=os.fstat(mark.fileno()).st_mtime, had=had)
