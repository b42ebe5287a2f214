"""Keep the work in hand of a training beside its store on S3, so that another node can go on with it.

Belongs here: saves on an object store. Does not belong here: saves in a folder (`state.py`), which are faster.

A save is an object of tensors, and then the small object `newest.json`, overwritten, which names it and the one before
by sha256; a kill at any moment costs one save at most. Nothing is listed, nothing is pickled.
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

KEPT = 2


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept with the tensors of a save: their sha256, and `name` where many lie in one place."""

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
        """Write a state, then forget all but the newest saves.

        Args:
            state: between two steps.
            fence: the lease's number; two holders of it never write over each other's tensors.
        """
        before = self._index()
        name = f"step-{state.facts['done']:09d}-{fence}.safetensors"
        data = save({name: value.contiguous() for name, value in state.tensors.items()})
        self._put(name, data)
        own = Kept(name=name, sha256=sha256(data), fence=fence, facts=state.facts)
        kept = [own, *(each for each in before if each.name != name)]
        self._put("newest.json", canonical(msgspec.to_builtins(kept[:KEPT])))
        for each in kept[KEPT:]:
            self._remove(each.name)

    def newest(self) -> State | None:
        """Return the newest save whose bytes are whole, or None."""
        for each in self._index():
            data = self._get(each.name)
            if data is not None and sha256(data) == each.sha256:
                with contextlib.suppress(SafetensorError):
                    return State(tensors=load(data), facts=each.facts)
        return None

    def forget(self) -> None:
        """Remove everything, once the training's result is stored."""
        for each in self._index():
            self._remove(each.name)
        self._remove("newest.json")

    def _index(self) -> list[Kept]:
        """Return what is kept; an index that is torn, or of other code, names nothing to go on from."""
        text = self._get("newest.json")
        try:
            return [] if text is None else msgspec.json.decode(text, type=list[Kept])
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
