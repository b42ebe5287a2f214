"""Store a training's saves next to its store on S3, so that another node can resume it.

A save is an object of tensors, followed by the small object `newest.json`, overwritten, which names it and the save
before by sha256; a kill at any moment costs one save at most. Nothing is listed, nothing is pickled.
`state.py` stores saves in a folder, which is faster.
"""

from __future__ import annotations

import contextlib

import msgspec
import obstore
from safetensors import SafetensorError
from safetensors.torch import load, save

from platform_assets.compute.train import Facts, State
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.objects import open_store

MAX_SAVES = 2


class SaveRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored with a save's tensors: their sha256, and `name` where several saves share an index."""

    name: str = ""
    sha256: str
    fence: int
    facts: Facts


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

    def save(self, state: State, *, fence: int) -> None:
        """Write a state, then delete all but the newest saves.

        Args:
            state: between two steps.
            fence: the lease's number: two holders of the lease never overwrite each other's tensors.
        """
        before = self._index()
        name = f"step-{state.facts['done']:09d}-{fence}.safetensors"
        data = save({name: value.contiguous() for name, value in state.tensors.items()})
        self._put(name, data)
        newest = SaveRecord(name=name, sha256=sha256(data), fence=fence, facts=state.facts)
        records = [newest, *(record for record in before if record.name != name)]
        self._put("newest.json", canonical(msgspec.to_builtins(records[:MAX_SAVES])))
        for record in records[MAX_SAVES:]:
            self._remove(record.name)

    def newest(self) -> State | None:
        """Return the newest save whose bytes are intact, or None."""
        for record in self._index():
            data = self._get(record.name)
            if data is not None and sha256(data) == record.sha256:
                with contextlib.suppress(SafetensorError):
                    return State(tensors=load(data), facts=record.facts)
        return None

    def forget(self) -> None:
        """Delete everything, once the training's result is stored."""
        for record in self._index():
            self._remove(record.name)
        self._remove("newest.json")

    def _index(self) -> list[SaveRecord]:
        """Return the records in the index; none from an index that is torn, or written by other code."""
        text = self._get("newest.json")
        try:
            return [] if text is None else msgspec.json.decode(text, type=list[SaveRecord])
        except msgspec.DecodeError:
            return []

    def _get(self, name: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, f"{self._folder}/{name}").bytes())
        except FileNotFoundError:
            return None

    def _put(self, name: str, data: bytes) -> None:
        obstore.put(self._store, f"{self._folder}/{name}", data, mode="overwrite")

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, f"{self._folder}/{name}")
