"""Keep the live model the one that the release ledger names.

A look at the store happens in a thread; the swap is one assignment, so a request sees the old model or the new one.
Any problem of a look is stated in `problem`, and the live model stays. `releases` decides whether a record may be
followed, `candidate` whether its bundle can be loaded.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.live import Live, Source
from platform_assets.serving.answer.model import Model, problem_of
from platform_assets.serving.follow import releases
from platform_assets.serving.follow.background import Deadline, Overdue
from platform_assets.serving.follow.candidate import Trial, TrialProblem
from platform_assets.serving.follow.local_copy import LocalCopy, LocalCopyProblem
from platform_assets.serving.follow.releases import Refusal, Release
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import is_there, reason
from platform_assets.training.sealed import ModelProblem, Sealed

REFUSED_AGAIN_S = 30.0
"""Seconds before a refused release is tried again: its bundle may have been repaired."""
UNFIT_AGAIN_S = 600.0
"""The same for a bundle whose bytes are right but cannot be served: every try costs a process, or a processor."""
LOAD_S = 30.0
RECORD_BYTES_MAX = 8 * 2**20
"""The largest record that is read: a verdict has some ten thousand bytes."""
log = logging.getLogger("bentoml.driftline")
"""A child of Bento's logger, because a server prints that one."""


class Follower:
    """Follows the releases of a product.

    Attributes:
        live: the model that answers, or None.
        latest: the number of the newest release seen.
        highest: the number of the newest release that could be followed; no older one is followed again.
        taking: called with a model just before it answers.
        confirmed_at: when the store last confirmed the local copy, as of the start; None without one.
        swaps: how often another release went live after the first look at the store: before it nobody asks.
    """

    def __init__(
        self,
        contract: Contract,
        root: str,
        *,
        fallback: ArtifactStore | None,
        fallback_digest: str,
        pinned: str | None,
        local_copy: LocalCopy | None = None,
        load_s: float = LOAD_S,
        trial: Trial | None = None,
        pinned_keys: Sequence[str] = (),
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            contract: of the Bento; a release with another one is reported, not loaded.
            root: the storage root, which need not exist.
            fallback: the store of the Bento's own bundle.
            fallback_digest: of that bundle.
            pinned: a bundle in the store to serve permanently, whatever its verdict; None to follow releases.
            local_copy: this machine's copy of the last release; None for no copy.
            load_s: time limit for a look at the store, and for loading and warming a bundle.
            trial: what tries a bundle of the store before this process loads it; by default a process of its own. The
                Bento's own bundle and a pinned one are not tried: nothing else could be served.
            pinned_keys: public keys, one of which must have signed a release and its verdict; none: any is followed.
        """
        self.live: Live | None = None
        self.latest: int | None = None
        self.highest = 0
        self.swaps = 0
        self._has_looked = False
        self.confirmed_at: datetime | None = None
        self.taking: Callable[[Live], None] = lambda _: None
        self._highest_digest: str | None = None
        self._highest_sha256: str | None = None
        self._pinned_keys = pinned_keys
        self._problem: str | None = None
        self._contract, self._root = contract, root
        self._fallback, self._fallback_digest, self._pinned = fallback, fallback_digest, pinned
        self._local_copy = local_copy if pinned is None else None
        self._copied_release: int | None = None
        self._store: ArtifactStore | None = None
        self._ledgers: Ledgers | None = None
        self._reading, self._loading = Deadline(load_s), Deadline(load_s)
        self._trial = Trial(load_s) if trial is None else trial
        self._sealed: Sealed | None = None
        self._refused: tuple[str, float, str] | None = None

    @property
    def problem(self) -> str | None:
        """Why the newest release is not served, or None; each change is one line in the log."""
        return self._problem

    @problem.setter
    def problem(self, message: str | None) -> None:
        """State the current problem; None for none."""
        if message != self._problem:
            self._problem = message
            log.warning("%s: %s", self._contract.product, message or "no problem is left.")

    def fall_back(self) -> None:
        """Serve this machine's copy of the last release, otherwise the Bento's own bundle.

        Does nothing if a bundle is pinned or one is live.
        """
        if self.live is not None or self._pinned is not None:
            return
        began_s, is_kept = time.monotonic(), False
        if (local_copy := self._local_copy) is not None:
            try:
                note = self._reading.run(f"reading {local_copy.folder}", local_copy.read)
                if note is not None:
                    # Also after a restart no release with a lower number is followed.
                    self.highest, self._highest_digest = note.highest, note.highest_digest
                    self._highest_sha256 = note.highest_sha256
                    self.confirmed_at = local_copy.confirmed()
                    if note.digest is not None:
                        self._go_live(self._tried(local_copy.store, note.digest, note.release, "kept"), began_s)
                        self._copied_release, is_kept = note.release, True
            except (LocalCopyProblem, ArtifactProblem, ModelProblem, Overdue, OSError) as problem:
                self.problem = f"the local copy of the last release cannot be served: {problem}"
        if not is_kept and self._fallback is not None:
            try:
                model = self._loaded(self._read(self._fallback, self._fallback_digest))
                self._go_live(Live(model, None, "fallback"), began_s)
            except (ArtifactProblem, ModelProblem, Overdue) as problem:
                self.problem = f"the fallback cannot be served: {problem}"

    def look(self) -> bool:
        """Look once whether another model must be served, and serve it; return whether the model changed.

        Any problem of the store, a record or a bundle is in `problem` afterwards, and the live model stays.
        """
        before = self.live
        try:
            self._look_or_refuse()
        except Refusal as problem:
            self.problem = str(problem)
        else:
            self.problem = None
        self._has_looked = True
        return self.live is not before

    def _look_or_refuse(self) -> None:
        """Look; any error, expected or not, becomes a sentence.

        An exception that escaped would end the thread, and no release would be followed any more.
        """
        import obstore

        try:
            self._look()
        except (Refusal, LocalCopyProblem) as problem:
            raise Refusal(str(problem)) from problem
        except (obstore.exceptions.BaseError, OSError) as problem:
            raise Refusal(f"the store at {self._root} cannot be read: {reason(self._root, problem)}.") from problem
        except (LedgerProblem, Overdue) as problem:
            raise Refusal(f"the store at {self._root} cannot be read: {problem}") from problem
        except Exception as problem:  # also a bug: whoever follows goes on with what is live
            first = (str(problem).splitlines() or [""])[0][:300]
            message = f"looking at the store at {self._root} failed with {type(problem).__name__}: {first}"
            raise Refusal(message) from problem

    def _look(self) -> None:
        if not self._reading.run("the store", lambda: is_there(self._root)):  # opening it would make the folder
            raise FileNotFoundError("the folder does not exist; check DRIFTLINE_ROOT, or create it")
        if self._pinned is not None:
            if self.live is None:
                self._take(self._pinned, None, "pinned")
            return
        self.latest, release = self._reading.run("the release ledger", self._newest)
        if isinstance(release, Refusal):
            raise release
        if release.number == self.highest and release.digest != self._highest_digest:
            raise Refusal(
                f"release {release.number} named {self._highest_digest} when it was followed, but now names "
                f"{release.digest}; a record is written once. The model stays; release again under a higher number."
            )
        if release.number == self.highest and release.sha256 != (self._highest_sha256 or release.sha256):
            raise Refusal(
                f"release {release.number} was changed after it was followed; a record is written once. The model "
                "stays."
            )
        self.highest, self._highest_digest, self._highest_sha256 = release.number, release.digest, release.sha256
        try:
            if release.contract_sha256 != self._contract.sha256:
                raise Refusal(
                    f"release {release.number} has contract {release.contract_sha256}, this Bento has "
                    f"{self._contract.sha256}: roll out the Bento that was built for the release, on Kubernetes "
                    f"with `driftline manifests {self._contract.product}`."
                )
            self._take(release.digest, release.number, "release")
        except Refusal:
            # It may be followed, so nothing older is, also after a restart.
            if (local_copy := self._local_copy) is not None:
                with contextlib.suppress(LocalCopyProblem, Overdue):  # it is tried again after a restart
                    self._reading.run(f"noting release {release.number}", lambda: local_copy.note(release))
            raise
        self._store_copy(release)

    def _newest(self) -> tuple[int, Release | Refusal]:
        ledgers = self._ledgers = self._ledgers or Ledgers(self._root, self._contract.product, RECORD_BYTES_MAX)
        number = ledgers.newest_number(naming.RELEASES, self.highest)
        if number == 0:
            return 0, Refusal(
                f"{self._contract.product} has no release in the store at {self._root}; release a model, or check "
                "DRIFTLINE_ROOT."
            )
        try:
            return number, releases.read(ledgers, number, self.highest, self._highest_sha256, self._pinned_keys)
        except Refusal as refusal:
            return number, refusal

    def _take(self, digest: str, release: int | None, source: Literal["release", "pinned"]) -> None:
        """Make a bundle in the store live, unless it is."""
        live, began_s = self.live, time.monotonic()
        if live is not None and live.model.digest == digest:
            if (live.release, live.source) != (release, source):
                self._go_live(Live(live.model, release, source), began_s)
                self.problem = None
            return
        if self._refused is not None and self._refused[0] == digest and time.monotonic() < self._refused[1]:
            raise Refusal(self._refused[2])
        try:
            live = self._tried(self._opened(), digest, release, source)
        except (ArtifactProblem, ModelProblem, Overdue) as problem:
            message = f"{source} {digest if release is None else release} is refused: {problem}"
            may_pass = isinstance(problem, ArtifactProblem | TrialProblem)
            again_s = REFUSED_AGAIN_S if may_pass else UNFIT_AGAIN_S
            self._refused = (digest, time.monotonic() + again_s, message)
            raise Refusal(message) from problem
        self.taking(live)
        self._go_live(live, began_s)
        # Making the local copy may take seconds: until then nobody should read about a problem that is over.
        self._refused = self.problem = None

    def _go_live(self, live: Live, began_s: float) -> None:
        """Let a model answer, and write one line of the log if it is another one or of another release."""
        before, self.live = self.live, live
        if before is not None and (before.release, before.model.digest) == (live.release, live.model.digest):
            return
        is_swap = before is not None and self._has_looked
        self.swaps += is_swap
        log.info(
            "%s: %s release %s, bundle %s, in %.1f s.",
            self._contract.product,
            f"swapped the model from release {_number(before)} to" if is_swap else "serves",
            _number(live),
            live.model.digest,
            time.monotonic() - began_s,
            extra={"product": self._contract.product, "release": live.release, "model": live.model.digest},
        )

    def _opened(self) -> ArtifactStore:
        self._store = self._store or ArtifactStore(self._root)
        return self._store

    def _read(self, store: ArtifactStore, digest: str) -> Sealed:
        def read() -> Sealed:
            return Sealed.read(store, digest, self._contract.sha256, self._trial.blob_bytes_max)

        try:
            return self._reading.run(f"reading {digest}", read)
        except Overdue as problem:  # the store's fault, not the bundle's
            raise ArtifactProblem(f"bundle {digest} cannot be read: {problem}") from problem

    def _tried(self, store: ArtifactStore, digest: str, release: int | None, source: Source) -> Live:
        """Read a bundle once, try it in another process, and load the same bytes here."""
        sealed = self._read(store, digest)
        if source != "pinned":
            self._trial(sealed)
        live = Live(self._loaded(sealed), release, source)
        self._sealed = sealed if self._local_copy is not None else None
        return live

    def _loaded(self, sealed: Sealed) -> Model:
        """Load and warm a bundle within the time limit."""
        loading: list[Model] = []

        def load() -> Model:
            try:
                model = Model.from_blobs(sealed)
                loading.append(model)
                model.warm()
            except Exception as problem:  # ONNX Runtime's exceptions have no public base class
                raise problem_of(sealed.digest, problem) from problem
            return model

        try:
            return self._loading.run(f"loading and warming {sealed.digest}", load)
        except Overdue:
            for late in loading:
                late.give_up()
            raise

    def _store_copy(self, release: Release) -> None:
        """Copy the served release to local disk, for the next start."""
        local_copy, store = self._local_copy, self._opened()
        if local_copy is None:
            return
        sealed, self._sealed = self._sealed, None
        if self._copied_release == release.number:
            local_copy.confirm()
            return

        def copy() -> None:
            local_copy.copy(store, release, sealed or Sealed.read(store, release.digest))

        try:
            self._reading.run(f"keeping release {release.number}", copy)
        except (LocalCopyProblem, ArtifactProblem, Overdue) as problem:
            raise LocalCopyProblem(
                f"release {release.number} is served, but not copied to local disk for a start without the store: "
                f"{problem}"
            ) from problem
        self._copied_release = release.number


def _number(live: Live | None) -> str:
    return "none" if live is None or live.release is None else str(live.release)
