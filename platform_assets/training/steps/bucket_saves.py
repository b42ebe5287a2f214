"""Store a training's saves next to its store on S3, so that another node can resume it.

A save is an object of tensors, followed by the small object `newest.json`, which names it and the save before by
sha256; a kill at any moment costs one save at most. Nothing is listed, nothing is pickled. `newest.json` changes only
if it is as it was read and knows no newer lease: a process that was cut off and comes back saves nothing any more.
`state.py` stores saves in a folder, which is faster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import obstore
from msgspec.structs import replace

from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.leases import LeaseLost
from platform_assets.store.objects import open_store
from platform_assets.store.records.models import WorldSizes
from platform_assets.training.loop_state import Facts, LoopState

if TYPE_CHECKING:
    from obstore import PutMode

INDEX = "newest.json"
MAX_SAVES = 2


class SaveRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored with a save's tensors: their sha256, and `name` where several saves share an index."""

    name: str = ""
    sha256: str
    fence: int
    facts: Facts
    world_sizes: WorldSizes = []

    def save_of(self, data: bytes) -> Save | None:
        """Return the save if these are its tensors, intact."""
        state = LoopState.of_bytes(data, self.facts) if sha256(data) == self.sha256 else None
        return None if state is None else Save(state=state, world_sizes=self.world_sizes)


@dataclass(frozen=True, kw_only=True)
class Save:
    """The state of a training between two steps, and how many processes came to it."""

    state: LoopState
    world_sizes: WorldSizes


class BucketSaves:
    """The saves of one training, by fingerprint, below a storage root.

    Args:
        root: a URL such as `s3://bucket/path`.
        fingerprint: of the training.
    """

    every_s: float = 15.0

    def __init__(self, root: str, fingerprint: str) -> None:
        self._store = open_store(root)
        self._folder = f"saves/{fingerprint}"

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
        data = state.to_bytes()
        self._put(name, data)
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
            if newer > fence:
                raise LeaseLost(f"saves {self._folder} belong to lease {newer}, ours is {fence}: stop writing.")
            records = change(before)
            try:
                self._put(INDEX, canonical(msgspec.to_builtins(records[:MAX_SAVES])), mode)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                continue  # changed since it was read, perhaps by a request of ours whose answer was lost
            return records

    def newest(self) -> Save | None:
        """Return the newest save whose bytes are intact, or None."""
        for record in self._index():
            if record.name:
                with contextlib.suppress(FileNotFoundError):  # the save before it is next
                    data = bytes(obstore.get(self._store, f"{self._folder}/{record.name}").bytes())
                    if (save := record.save_of(data)) is not None:
                        return save
        return None

    def forget(self) -> None:
        """Delete everything, once the training's result is stored."""
        for record in self._index():
            if record.name:
                self._remove(record.name)
        self._remove(INDEX)

    def _index(self) -> list[SaveRecord]:
        return self._read_index()[0]

    def _read_index(self) -> tuple[list[SaveRecord], PutMode]:
        """Return the records in the index, none from one that is torn or of other code; and how to replace it."""
        try:
            answer = obstore.get(self._store, f"{self._folder}/{INDEX}")
        except FileNotFoundError:
            return [], "create"
        is_folder = isinstance(self._store, obstore.store.LocalStore)  # which replaces no version
        mode: PutMode = "overwrite" if is_folder else {"e_tag": answer.meta["e_tag"]}
        try:
            return msgspec.json.decode(bytes(answer.bytes()), type=list[SaveRecord]), mode
        except msgspec.DecodeError:
            return [], mode

    def _put(self, name: str, data: bytes, mode: PutMode = "overwrite") -> None:
        obstore.put(self._store, f"{self._folder}/{name}", data, mode=mode)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, f"{self._folder}/{name}")
