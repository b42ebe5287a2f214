"""Store a training's saves, so that a killed training resumes: next to its store on S3, or in a scratch folder.

A save is an object of tensors, followed by the small object `newest.json`, which names it and the save before by
sha256; a kill or a torn write at any moment costs one save at most. Nothing is listed, nothing is pickled. On S3
`newest.json` changes only if it is as it was read and knows no newer lease: a process that was cut off and comes back
saves nothing any more.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import obstore
from msgspec.structs import replace

from platform_assets.base.settings import Settings
from platform_assets.store import objects
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.leases import LeaseLost
from platform_assets.store.records.trainings import WorldSizes
from platform_assets.training.loop_state import Facts, LoopState

if TYPE_CHECKING:
    from obstore import PutMode

INDEX = "newest.json"
MAX_SAVES = 2
# A save every 15 s stalls a training by 1.3 % at .05 GB of state, by 13 % at .5 GB, and by 60 % at 2 GB.
FOLDER_S, BUCKET_S = 2.0, 15.0
"""How much work a kill may cost, by where saves are: a folder is faster."""


class SaveRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the index says of a save: the name of its tensors, empty for none, and their sha256."""

    name: str = ""
    sha256: str
    fence: int
    facts: Facts
    world_sizes: WorldSizes = []


@dataclass(frozen=True, kw_only=True)
class Save:
    """The state of a training between two steps, and how many processes came to it."""

    state: LoopState
    world_sizes: WorldSizes


def saves(settings: Settings, fingerprint: str) -> Saves:
    """Return a training's saves: next to the store on S3, where any node finds them, otherwise in a scratch folder."""
    return Saves(settings.root if "://" in settings.root else str(settings.scratch), fingerprint)


class Saves:
    """The saves of one training, by fingerprint, below a storage root.

    Args:
        root: a folder, or a URL such as `s3://bucket/path`.
        fingerprint: of the training.
    """

    def __init__(self, root: str, fingerprint: str) -> None:
        self._root, self._store = root, objects.open_store(root)
        self._folder = f"saves/{fingerprint}"
        self._is_in_folder = objects.is_folder(root)
        self.every_s = FOLDER_S if self._is_in_folder else BUCKET_S

    def claim(self, *, fence: int) -> None:
        """Close the saves to holders of older leases: mark all of them, or that there are none, with this one.

        Raises:
            LeaseLost: somebody holds a newer lease.
        """
        nothing = SaveRecord(fence=fence, sha256="", facts={"done": 0, "steps": 0, "loss_sum": 0.0, "history": []})
        self._change(lambda records: [replace(record, fence=fence) for record in records or [nothing]], fence)

    def save(self, state: LoopState, *, fence: int, world_sizes: WorldSizes) -> None:
        """Write a state, then delete all but the newest saves.

        Args:
            state: between two steps.
            fence: the lease's number: two holders of the lease never overwrite each other's tensors.
            world_sizes: of the processes that came to it.

        Raises:
            LeaseLost: somebody holds a newer lease.
        """
        name = f"step-{state.facts['done']:09d}-{fence}.safetensors"
        # Not torch.distributed.checkpoint, whose metadata and tensors are pickles.
        data = state.to_bytes()
        objects.replace(self._store, f"{self._folder}/{name}", data)
        newest = SaveRecord(name=name, sha256=sha256(data), fence=fence, facts=state.facts, world_sizes=world_sizes)
        records = self._change(
            lambda before: [newest, *(record for record in before if record.name not in ("", name))], fence
        )
        for record in records[MAX_SAVES:]:
            self._remove(record.name)

    def _change(self, change: Callable[[list[SaveRecord]], list[SaveRecord]], fence: int) -> list[SaveRecord]:
        """Change the index, whose newest records are stored; return all of them.

        Raises:
            LeaseLost: it knows a newer lease.
        """
        while True:
            before, mode = self._read_index()
            newer = max((record.fence for record in before), default=fence)
            # A folder is this machine's: its processes see the lease, and it may be older than the store.
            if newer > fence and not self._is_in_folder:
                raise LeaseLost(f"saves {self._folder} belong to lease {newer}, ours is {fence}: stop writing.")
            records = change(before)
            try:
                self._put_index(canonical(msgspec.to_builtins(records[:MAX_SAVES])), mode)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                continue  # changed since it was read, perhaps by a request of ours whose answer was lost
            return records

    def newest(self) -> Save | None:
        """Return the newest save whose bytes are intact, or None."""
        for record in self._read_index()[0]:
            data = objects.read(self._store, f"{self._folder}/{record.name}") if record.name else None
            if data is not None and sha256(data) == record.sha256:  # or else the save before it is next
                state = LoopState.of_bytes(data, record.facts)
                if state is not None:
                    return Save(state=state, world_sizes=record.world_sizes)
        return None

    def forget(self) -> None:
        """Delete everything, once the training's result is stored."""
        if self._is_in_folder:  # with what writers that were killed left behind
            shutil.rmtree(Path(self._root.removeprefix("file://"), self._folder), ignore_errors=True)
            return
        for record in self._read_index()[0]:
            if record.name:
                self._remove(record.name)
        self._remove(INDEX)

    def _read_index(self) -> tuple[list[SaveRecord], PutMode]:
        """Return the records in the index, none from one that is torn or of other code; and how to replace it."""
        try:
            answer = obstore.get(self._store, f"{self._folder}/{INDEX}")
        except FileNotFoundError:
            return [], "create"
        try:
            return msgspec.json.decode(bytes(answer.bytes()), type=list[SaveRecord]), {"e_tag": answer.meta["e_tag"]}
        except msgspec.DecodeError:
            return [], {"e_tag": answer.meta["e_tag"]}

    def _put_index(self, data: bytes, mode: PutMode) -> None:
        if self._is_in_folder:  # which replaces no version, and is flushed to the disk
            objects.replace(self._store, f"{self._folder}/{INDEX}", data)
        else:
            obstore.put(self._store, f"{self._folder}/{INDEX}", data, mode=mode)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, f"{self._folder}/{name}")
