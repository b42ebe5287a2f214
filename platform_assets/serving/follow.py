"""Keep the live model the one that the release ledger names.

Belongs here: which bundle is served and why, looking for a new release, refusing one. Does not belong here: HTTP,
scoring. A look happens in a thread; the swap is one assignment, so a request sees the old model or the new one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from platform_assets import naming
from platform_assets.serving.contract import Contract
from platform_assets.serving.model import Model, ModelProblem
from platform_assets.storage.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.storage.ledgers import LedgerProblem, Ledgers
from platform_assets.storage.objects import is_there

REFUSED_AGAIN_S = 30.0
"""How long a refused release is left alone before it is tried again: its bundle may have been mended."""


@dataclass(frozen=True)
class Live:
    """The model that answers.

    Attributes:
        model: loaded, verified and warm.
        release: the number of its release, None when it was not chosen by one.
        source: `release`, `pinned` (`Settings.serving_digest`) or `fallback` (the bundle that came with the Bento).
    """

    model: Model
    release: int | None
    source: Literal["release", "pinned", "fallback"]


class Follower:
    """Follows the releases of a product.

    Attributes:
        live: the model that answers, or None.
        latest: the number of the newest release seen.
        problem: why the newest release is not served, or None.
    """

    def __init__(
        self, contract: Contract, root: str, *, fallback: ArtifactStore | None, fallback_digest: str, pinned: str | None
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            contract: of the Bento; a release with another one is reported, not loaded.
            root: the storage root, which need not be there.
            fallback: where the bundle lies that came with the Bento.
            fallback_digest: of that bundle.
            pinned: a bundle of the store to serve for good, or None to follow releases.
        """
        self.live: Live | None = None
        self.latest: int | None = None
        self.problem: str | None = None
        self._contract = contract
        self._root = root
        self._fallback, self._fallback_digest, self._pinned = fallback, fallback_digest, pinned
        self._store: ArtifactStore | None = None
        self._ledgers: Ledgers | None = None
        self._refused: tuple[int | str, float] | None = None

    def fall_back(self) -> None:
        """Serve the bundle that came with the Bento, unless another was pinned or is live."""
        if self.live is None and self._pinned is None and self._fallback is not None:
            try:
                self.live = self._loaded(self._fallback, self._fallback_digest, None, "fallback")
            except (ArtifactProblem, ModelProblem) as problem:
                self.problem = f"the fallback cannot be served: {problem}"

    def look(self) -> bool:
        """Look once whether another model is to be served, and serve it; tell whether the model changed.

        Whatever is wrong with the store, a record or a bundle stands in `problem` afterwards, and the live model stays.
        """
        import obstore

        before = self.live
        try:
            self._look()
        except (obstore.exceptions.BaseError, OSError, LedgerProblem) as problem:
            self.problem = f"the store at {self._root} cannot be read: {str(problem).splitlines()[0]}"
        return self.live is not before

    def _look(self) -> None:
        if not is_there(self._root):
            raise FileNotFoundError("the folder is not there; check DRIFTLINE_ROOT, or make it")
        if self._store is None or self._ledgers is None:
            self._store = ArtifactStore(self._root)
            self._ledgers = Ledgers(self._root, self._contract.product)
        if self._pinned is not None:
            if self.live is None:
                self._take(self._store, self._pinned, self._pinned, None, "pinned")
            return
        found = self._ledgers.latest(naming.RELEASES)
        if found is None:
            self.problem = f"{self._contract.product} has no release in the store at {self._root}."
            return
        self.latest, record = found
        if self.live is not None and self.live.release == self.latest:
            self.problem = None
            return
        self._follow(self._store, self.latest, record)

    def _follow(self, store: ArtifactStore, number: int, record: dict[str, Any]) -> None:
        try:
            digest, contract = record["channels"]["live"]["digest"], record["contract_sha256"]
        except (KeyError, TypeError):
            self.problem = f"release {number} names no live digest and contract; the record was written by other code."
            return
        if contract != self._contract.sha256:
            self.problem = (
                f"release {number} has contract {contract}, this Bento {self._contract.sha256}: "
                "it needs the Bento that was built for it, by a rolling deployment."
            )
            return
        self._take(store, number, digest, number, "release")

    def _take(
        self,
        store: ArtifactStore,
        name: int | str,
        digest: str,
        release: int | None,
        source: Literal["release", "pinned"],
    ) -> None:
        if self._refused is not None and self._refused[0] == name and time.monotonic() < self._refused[1]:
            return
        try:
            if self.live is not None and self.live.model.digest == digest:
                self.live = Live(self.live.model, release, source)
            else:
                self.live = self._loaded(store, digest, release, source)
        except (ArtifactProblem, ModelProblem) as problem:
            self._refused = (name, time.monotonic() + REFUSED_AGAIN_S)
            self.problem = f"{source} {name} is refused: {problem}"
            return
        self._refused, self.problem = None, None

    def _loaded(
        self, store: ArtifactStore, digest: str, release: int | None, source: Literal["release", "pinned", "fallback"]
    ) -> Live:
        model = Model.load(store, digest)
        if model.contract.sha256 != self._contract.sha256:
            raise ModelProblem(
                f"bundle {digest} has contract {model.contract.sha256}, this Bento {self._contract.sha256}; "
                "build a Bento for it."
            )
        model.warm()
        return Live(model, release, source)
