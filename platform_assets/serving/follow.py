"""Keep the live model the one that the release ledger names.

Belongs here: which bundle is served and why, looking for a new release, refusing one. Does not belong here: HTTP,
scoring, whether a record may be followed (`releases`). A look happens in a thread; the swap is one assignment, so a
request sees the old model or the new one. Whatever a look meets stands in `problem`, and the live model stays.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from platform_assets import naming
from platform_assets.serving import releases
from platform_assets.serving.beside import Deadline, Overdue
from platform_assets.serving.contract import Contract
from platform_assets.serving.kept import Kept, KeptProblem
from platform_assets.serving.model import Model, ModelProblem
from platform_assets.serving.releases import Refusal, Release
from platform_assets.storage.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.storage.ledgers import LedgerProblem, Ledgers
from platform_assets.storage.objects import is_there

REFUSED_AGAIN_S = 30.0
"""How long a refused release is left alone before it is tried again: its bundle may have been mended."""
OVERDUE_AGAIN_S = 600.0
"""The same for one that did not load and warm in time, which costs a processor each time."""
LOAD_S = 30.0
Source = Literal["release", "pinned", "kept", "fallback"]
log = logging.getLogger("bentoml.driftline")
"""Below Bento's logger, for a server prints that one."""


@dataclass(frozen=True)
class Live:
    """The model that answers.

    Attributes:
        model: loaded, verified and warm.
        release: the number of its release, None when it was not chosen by one.
        source: `release`, `pinned` (`Settings.serving_digest`), `kept` (the last release that this machine knows of,
            not confirmed by the store since the start) or `fallback` (the bundle that came with the Bento).
    """

    model: Model
    release: int | None
    source: Source


class Follower:
    """Follows the releases of a product.

    Attributes:
        live: the model that answers, or None.
        latest: the number of the newest release seen.
        highest: the number of the newest release that could be followed; no older one is ever followed again.
        kept_at: when the store last confirmed what was kept on local disk, as of the start; None without.
    """

    def __init__(
        self,
        contract: Contract,
        root: str,
        *,
        fallback: ArtifactStore | None,
        fallback_digest: str,
        pinned: str | None,
        kept: Kept | None = None,
        load_s: float = LOAD_S,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            contract: of the Bento; a release with another one is reported, not loaded.
            root: the storage root, which need not be there.
            fallback: where the bundle lies that came with the Bento.
            fallback_digest: of that bundle.
            pinned: a bundle of the store to serve for good, whatever its verdict, or None to follow releases.
            kept: what this machine keeps of the last release, None to keep nothing.
            load_s: how long a look at the store, or loading and warming a bundle, may take.
        """
        self.live: Live | None = None
        self.latest: int | None = None
        self.highest = 0
        self.kept_at: datetime | None = None
        self._highest_digest: str | None = None
        self._problem: str | None = None
        self._contract, self._root = contract, root
        self._fallback, self._fallback_digest, self._pinned = fallback, fallback_digest, pinned
        self._kept = kept if pinned is None else None
        self._kept_release: int | None = None
        self._store: ArtifactStore | None = None
        self._ledgers: Ledgers | None = None
        self._reading, self._loading = Deadline(load_s), Deadline(load_s)
        self._refused: tuple[str, float, str] | None = None

    @property
    def problem(self) -> str | None:
        """Why the newest release is not served, or None; each change is one line of the log."""
        return self._problem

    @problem.setter
    def problem(self, words: str | None) -> None:
        """Name what is wrong now; None: nothing is."""
        if words != self._problem:
            self._problem = words
            log.warning("%s: %s", self._contract.product, words or "the newest release is served; no problem is left.")

    def fall_back(self) -> None:
        """Serve what this machine keeps of the last release, or else the bundle that came with the Bento.

        Nothing happens when a bundle was pinned or one is live.
        """
        if self.live is not None or self._pinned is not None:
            return
        if self._kept is not None:
            try:
                self.live = self._start_from(self._kept)
            except (KeptProblem, ArtifactProblem, ModelProblem, Overdue, OSError) as problem:
                self.problem = f"what is kept of the last release cannot be served: {problem}"
        if self.live is None and self._fallback is not None:
            try:
                self.live = self._loaded(self._fallback, self._fallback_digest, None, "fallback")
            except (ArtifactProblem, ModelProblem, Overdue) as problem:
                self.problem = f"the fallback cannot be served: {problem}"

    def look(self) -> bool:
        """Look once whether another model is to be served, and serve it; tell whether the model changed.

        Whatever is wrong with the store, a record or a bundle stands in `problem` afterwards, and the live model stays.
        """
        before = self.live
        try:
            self._look_or_refuse()
        except Refusal as problem:
            self.problem = str(problem)
        else:
            self.problem = None
        return self.live is not before

    def _look_or_refuse(self) -> None:
        """Look; whatever goes wrong, expected or not, becomes a sentence.

        An exception that escaped would end the thread, and with it following for good.
        """
        import obstore

        try:
            self._look()
        except (Refusal, KeptProblem) as problem:
            raise Refusal(str(problem)) from problem
        except (obstore.exceptions.BaseError, OSError, LedgerProblem, Overdue) as problem:
            words = f"the store at {self._root} cannot be read: {(str(problem).splitlines() or [''])[0]}"
            raise Refusal(words) from problem
        except Exception as problem:
            first = (str(problem).splitlines() or [""])[0][:300]
            words = f"the look at the store at {self._root} failed by {type(problem).__name__}: {first}"
            raise Refusal(words) from problem

    def _look(self) -> None:
        if not self._reading.run("the store", lambda: is_there(self._root)):
            raise FileNotFoundError("the folder is not there; check DRIFTLINE_ROOT, or make it")
        if self._pinned is not None:
            if self.live is None:
                self._take(self._pinned, None, "pinned")
            return
        self.latest, release = self._reading.run("the release ledger", self._newest)
        if isinstance(release, Refusal):
            raise release
        if release.number == self.highest and release.digest != self._highest_digest:
            raise Refusal(
                f"release {release.number} named {self._highest_digest} when it was followed and names "
                f"{release.digest} now; a record is written once. The model stays; release again under a higher number."
            )
        self.highest, self._highest_digest = release.number, release.digest
        try:
            self._serve(release)
        except Refusal:
            self._remember(release)
            raise
        self._keep(release)

    def _serve(self, release: Release) -> None:
        if release.contract_sha256 != self._contract.sha256:
            raise Refusal(
                f"release {release.number} has contract {release.contract_sha256}, this Bento {self._contract.sha256}: "
                "it needs the Bento that was built for it, by a rolling deployment."
            )
        self._take(release.digest, release.number, "release")

    def _newest(self) -> tuple[int, Release | Refusal]:
        ledgers = self._ledgers = self._ledgers or Ledgers(self._root, self._contract.product)
        number = ledgers.newest_number(naming.RELEASES, self.highest)
        if number == 0:
            return 0, Refusal(f"{self._contract.product} has no release in the store at {self._root}.")
        try:
            return number, releases.read(ledgers, number)
        except Refusal as refusal:
            return number, refusal

    def _take(self, digest: str, release: int | None, source: Literal["release", "pinned"]) -> None:
        """Make a bundle of the store live, unless it is."""
        live = self.live
        if live is not None and live.model.digest == digest:
            if (live.release, live.source) != (release, source):
                self.live = Live(live.model, release, source)
                self.problem = None
            return
        if self._refused is not None and self._refused[0] == digest and time.monotonic() < self._refused[1]:
            raise Refusal(self._refused[2])
        try:
            self.live = self._loaded(self._opened(), digest, release, source)
        except (ArtifactProblem, ModelProblem, Overdue) as problem:
            words = f"{source} {digest if release is None else release} is refused: {problem}"
            again_s = OVERDUE_AGAIN_S if isinstance(problem, Overdue) else REFUSED_AGAIN_S
            self._refused = (digest, time.monotonic() + again_s, words)
            raise Refusal(words) from problem
        # Keeping it may take seconds: until then nobody shall read of a trouble that is over.
        self._refused = self.problem = None

    def _opened(self) -> ArtifactStore:
        self._store = self._store or ArtifactStore(self._root)
        return self._store

    def _loaded(self, store: ArtifactStore, digest: str, release: int | None, source: Source) -> Live:
        loading: list[Model] = []

        def load() -> Model:
            try:
                model = Model.load(store, digest, contract_sha256=self._contract.sha256)
                loading.append(model)
                model.warm()
            except (ArtifactProblem, ModelProblem):
                raise
            except Exception as problem:  # a graph is a program: what the libraries raise at it has no end
                raise ModelProblem(f"bundle {digest} failed by {type(problem).__name__}: {problem!s:.300}") from problem
            return model

        try:
            model = self._loading.run(f"loading and warming {digest}", load)
        except Overdue:
            for late in loading:
                late.give_up()
            raise
        return Live(model, release, source)

    def _start_from(self, kept: Kept) -> Live | None:
        note = self._reading.run(f"reading {kept.folder}", kept.read)
        if note is None:
            return None
        self.highest, self._highest_digest, self.kept_at = note.highest, note.highest_digest, kept.confirmed()
        if note.digest is None:
            return None
        live = self._loaded(kept.store, note.digest, note.release, "kept")
        self._kept_release = note.release
        return live

    def _remember(self, release: Release) -> None:
        """Keep the number of a release that may be followed and could not be served here."""
        kept = self._kept
        if kept is not None:
            with contextlib.suppress(KeptProblem, Overdue):
                self._reading.run(f"noting release {release.number}", lambda: kept.note(release))

    def _keep(self, release: Release) -> None:
        """Keep the release that is served on local disk, for the next start."""
        kept, store = self._kept, self._opened()
        if kept is None:
            return
        if self._kept_release == release.number:
            kept.confirm()
            return
        try:
            self._reading.run(f"keeping release {release.number}", lambda: kept.keep(store, release))
        except (KeptProblem, ArtifactProblem, Overdue) as problem:
            raise KeptProblem(
                f"release {release.number} is served and not kept for a start without the store: {problem}"
            ) from problem
        self._kept_release = release.number
