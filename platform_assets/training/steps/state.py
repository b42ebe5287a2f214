"""Store a training's saves in a folder, so that a killed training resumes.

A save is `step-N.safetensors` and then `step-N.json` with its sha256, each renamed into place; the newest pair that
agrees wins, so a kill or a torn write at any moment costs one save at most. Nothing is pickled.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

import msgspec

from platform_assets.base.settings import Settings
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.records.models import WorldSizes
from platform_assets.training.loop_state import LoopState
from platform_assets.training.steps.bucket_saves import BucketSaves, Save, SaveRecord

MAX_SAVES = 2
_NAME = re.compile(r"step-(\d{9})\.json")


class SaveStore(Protocol):
    """Where a training stores its saves.

    Attributes:
        every_s: how much work a kill may cost with this store.
    """

    every_s: float

    def claim(self, *, fence: int) -> None:
        """Close the saves to holders of older leases."""

    def save(self, state: LoopState, *, fence: int, world_sizes: WorldSizes) -> None:
        """Write a state, then delete all but the newest saves."""

    def newest(self) -> Save | None:
        """Return the newest save whose bytes are intact, or None."""

    def forget(self) -> None:
        """Delete everything."""


def saves(settings: Settings, fingerprint: str) -> SaveStore:
    """Return a training's save store: next to the store on S3, where any node finds it, otherwise a scratch folder."""
    if "://" in settings.root:
        return BucketSaves(settings.root, fingerprint)
    return Saves(settings.scratch, fingerprint)


class Saves:
    """The saves of one training, by fingerprint, in a folder that may be lost."""

    every_s: float = 2.0

    def __init__(self, scratch: Path, fingerprint: str) -> None:
        self.folder = scratch / "training" / fingerprint

    def claim(self, *, fence: int) -> None:
        """Do nothing: a folder is this machine's, and its processes see the lease."""

    def save(self, state: LoopState, *, fence: int, world_sizes: WorldSizes) -> None:
        """Write a state, then delete all but the newest saves.

        Args:
            state: between two steps.
            fence: the lease's number, for investigating accidents.
            world_sizes: of the processes that came to it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"step-{state.facts['done']:09d}"
        data = state.to_bytes()
        self._write(f"{stem}.safetensors", data)
        record = SaveRecord(sha256=sha256(data), fence=fence, facts=state.facts, world_sizes=world_sizes)
        self._write(f"{stem}.json", canonical(msgspec.to_builtins(record)))
        for step in self._steps()[MAX_SAVES:]:
            for suffix in ("json", "safetensors"):
                (self.folder / f"step-{step:09d}.{suffix}").unlink(missing_ok=True)

    def newest(self) -> Save | None:
        """Return the newest save whose bytes are intact, or None."""
        for step in self._steps():
            save = self._read(f"step-{step:09d}")
            if save is not None:
                return save
        return None

    def forget(self) -> None:
        """Delete everything, once the training's result is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def _read(self, stem: str) -> Save | None:
        try:
            record = msgspec.json.decode((self.folder / f"{stem}.json").read_bytes(), type=SaveRecord)
            return record.save_of((self.folder / f"{stem}.safetensors").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, name: str, data: bytes) -> None:
        waiting = self.folder / f".{name}.{os.getpid()}"
        with waiting.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(self.folder / name)
