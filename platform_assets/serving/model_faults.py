"""Note what speaks against the model that a process serves: invalid answers, and processes that died with it.

A model that passed its trials may still meet a row that it cannot answer. Its caller gets 503 and the process stays
ready, because the other rows are answered; `/readyz` (`problem`), a gauge, a counter and the log say so. Which model a
process has in hand is in a file, which a process that is stopped removes and one that is killed leaves behind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from platform_assets.serving.private import make_folder
from platform_assets.storage import durable

if TYPE_CHECKING:
    from platform_assets.serving.live import Live

SHOWN_S = 3600.0
"""How long after the last invalid answer it is a problem, and how soon after a swap a death concerns the model."""
FOLDER = "in_hand"
_SAME_START_S = 1.0
log = logging.getLogger("bentoml.driftline")


class InHand(msgspec.Struct, frozen=True, kw_only=True):
    """The model that a process has, as in its file; the file's time is when it was last known to be alive.

    Attributes:
        since_s: wall clock when it took the model.
        process_s: wall clock when the process started, because ids of processes repeat.
        deaths: processes before it that died with this model.
    """

    digest: str
    release: int | None
    since_s: float
    pid: int
    process_s: float
    deaths: int = 0


class Died(msgspec.Struct, frozen=True, kw_only=True):
    """A process that died: what it had in hand, and the last sign of life."""

    had: InHand
    alive_s: float

    @property
    def lived_s(self) -> float:
        """Seconds with the model, as far as known."""
        return max(0.0, self.alive_s - self.had.since_s)


class ModelFaults:
    """What speaks against the live model.

    Attributes:
        invalid: requests so far, of whatever model, to which there was no valid answer.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Prepare; nothing is read or written before `start`.

        Args:
            folder: of the product's local copy; None to keep no file.
        """
        self.invalid = 0
        self._folder = None if folder is None else folder / FOLDER
        self._digest, self._of_digest, self._last_s = "", 0, 0.0
        self._product = ""
        self._died: Died | None = None
        self._mine: InHand | None = None

    def count(self, live: Live) -> None:
        """Count a request to which the model gave no valid answer; the first, tenth, hundredth of a model is logged."""
        if live.model.digest != self._digest:
            self._digest, self._of_digest = live.model.digest, 0
        self.invalid, self._of_digest, self._last_s = self.invalid + 1, self._of_digest + 1, time.time()
        if str(self._of_digest).rstrip("0") == "1":
            log.warning("%s: %s", live.model.contract.product, self._of_answers(live))

    def problem(self, live: Live | None) -> str | None:
        """Return what speaks against the live model, or None."""
        if live is None:
            return None
        problems = []
        if live.model.digest == self._digest and time.time() - self._last_s < SHOWN_S:
            problems.append(self._of_answers(live))
        if self._died is not None and (live.release or 0) <= (self._died.had.release or 0):
            problems.append(self._of_death(self._died))
        return " ".join(problems) or None

    def start(self, product: str) -> None:
        """Find out whether a process before this one died soon after it took a model."""
        self._product = product
        if self._folder is None:
            return
        died = [item for path in self._folder.glob("*.json") if (item := _left_behind(path)) is not None]
        died = [item for item in died if item.lived_s < SHOWN_S]
        if died:
            self._died = max(died, key=lambda item: item.alive_s)
            log.warning("%s: %s", product, self._of_death(self._died))

    def note(self, live: Live | None) -> None:
        """Write down which model this process has, and that it is alive; other code reports a disk that fails."""
        if self._folder is None or live is None:
            return
        mine, path = self._mine, self._path(self._folder)
        with contextlib.suppress(OSError):
            if mine is not None and (mine.digest, mine.release) == (live.model.digest, live.release):
                os.utime(path)
                return
            had = None if self._died is None else self._died.had
            deaths = had.deaths + 1 if had is not None and had.digest == live.model.digest else 0
            mine = InHand(
                digest=live.model.digest,
                release=live.release,
                since_s=time.time(),
                pid=os.getpid(),
                process_s=psutil.Process().create_time(),
                deaths=deaths,
            )
            make_folder(self._folder)
            durable.replace(path, msgspec.json.encode(mine))
            self._mine = mine

    def close(self) -> None:
        """Remove the file: this process ends as asked."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._path(self._folder).unlink()

    def _path(self, folder: Path) -> Path:
        return folder / f"{os.getpid()}.json"

    def _of_answers(self, live: Live) -> str:
        moment = datetime.fromtimestamp(self._last_s, UTC).isoformat(timespec="seconds")
        return (
            f"model {live.model.digest} (release {live.release}) gave no valid answer to "
            f"{self._of_digest:,} requests of this process, the last one at {moment}; their callers got 503. "
            f"`driftline rollback {live.model.contract.product}` restores the model before it."
        )

    def _of_death(self, died: Died) -> str:
        had = died.had
        before = f"{had.deaths + 1} processes before this one" if had.deaths else "the process before this one"
        return (
            f"{before} died with model {had.digest} (release {had.release}) in hand, the last one "
            f"{died.lived_s:.0f} s after it had taken it. If it goes on, `driftline rollback {self._product}` restores "
            "the model before it."
        )


def _left_behind(path: Path) -> Died | None:
    """Return what a dead process left in a file, which is removed; None for one that lives, and for other content."""
    try:
        had, alive_s = msgspec.json.decode(path.read_bytes(), type=InHand), path.stat().st_mtime
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        had, alive_s = None, 0.0
    if had is not None:
        with contextlib.suppress(psutil.Error):
            if abs(psutil.Process(had.pid).create_time() - had.process_s) < _SAME_START_S:
                return None
    with contextlib.suppress(OSError):
        path.unlink()
    return None if had is None else Died(had=had, alive_s=alive_s)
