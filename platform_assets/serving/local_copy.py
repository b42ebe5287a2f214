"""Keep on local disk the last good bundle and the highest release number, for a start while the store is away.

Belongs here: one folder for each product, shared by the workers of a machine. Does not belong here: when a bundle is
good (`follow`). A bundle is verified when it is read; the small file that names it is replaced as a whole, after the
blobs are on disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from platform_assets import naming
from platform_assets.problems import Problem
from platform_assets.records.releases import Digest
from platform_assets.serving.releases import Release
from platform_assets.storage import durable
from platform_assets.storage.artifacts import ArtifactStore, sha256

FORMAT = 1
NAME = "kept.json"


class KeptProblem(Problem):
    """What is kept cannot be read or written; the message names the place."""


class KeptNote(msgspec.Struct, frozen=True, kw_only=True):
    """What `kept.json` says.

    Attributes:
        highest, highest_digest: the newest release that was ever followed, and its bundle.
        release, digest: the newest release whose bundle is kept, None before the first.
    """

    format: int
    highest: int
    highest_digest: Digest
    release: int | None = None
    digest: Digest | None = None


class Kept:
    """What is kept of one product."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is made before something is kept."""
        self.folder = folder

    def read(self) -> KeptNote | None:
        """Return the note, or None when nothing was kept.

        Raises:
            KeptProblem: it cannot be read.
        """
        try:
            note = msgspec.json.decode((self.folder / NAME).read_bytes(), type=KeptNote)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise KeptProblem(f"{self.folder / NAME} cannot be read: {problem}. Remove it to start without.") from None
        if note.format != FORMAT:
            raise KeptProblem(f"{self.folder / NAME} has format {note.format}; expected {FORMAT}. Remove it.")
        return note

    @property
    def store(self) -> ArtifactStore:
        """The blobs that are kept."""
        return ArtifactStore(str(self.folder))

    def confirm(self) -> None:
        """Note that the store still names what is kept as the newest."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / NAME)

    def confirmed(self) -> datetime | None:
        """Return when that was last noted, in UTC; None when nothing is kept."""
        try:
            return datetime.fromtimestamp((self.folder / NAME).stat().st_mtime, UTC)
        except OSError:
            return None

    def note(self, release: Release) -> None:
        """Keep the number of a release that may be followed, before its bundle is loaded.

        Raises:
            KeptProblem: it cannot be written.
        """
        with self._alone():
            note = self._known()
            if note is None or note.highest < release.number:
                kept = (None, None) if note is None else (note.release, note.digest)
                self._write(release.number, release.digest, *kept)

    def keep(self, store: ArtifactStore, release: Release) -> None:
        """Keep a bundle that answers, and remove the blobs of others.

        Raises:
            KeptProblem: it cannot be written.
            ArtifactProblem: the store does not give the bundle any more.
        """
        bundle = store.bundle(release.digest)
        blobs = {blob["sha256"] for blob in bundle.manifest["blobs"].values()} | {bundle.digest}
        with self._alone():
            note = self._known()
            if note is not None and (note.release or 0) > release.number:
                return
            for digest in sorted(blobs):
                if not self._has(digest):
                    durable.replace(self.folder / naming.blob_path(digest), store.get(digest))
            highest = (release.number, release.digest)
            if note is not None and note.highest > release.number:
                highest = (note.highest, note.highest_digest)
            self._write(*highest, release.number, release.digest)
            for place in (self.folder / naming.blob_path("0" * 64)).parents[1].glob("*/*"):
                if place.name not in blobs:
                    place.unlink()

    def _known(self) -> KeptNote | None:
        """Return the note; one that cannot be read is written anew."""
        try:
            return self.read()
        except KeptProblem:
            return None

    def _has(self, digest: str) -> bool:
        try:
            return sha256((self.folder / naming.blob_path(digest)).read_bytes()) == digest
        except FileNotFoundError:
            return False

    def _write(self, highest: int, highest_digest: str, release: int | None, digest: str | None) -> None:
        note = KeptNote(format=FORMAT, highest=highest, highest_digest=highest_digest, release=release, digest=digest)
        durable.replace(self.folder / NAME, msgspec.json.encode(note))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder among the workers of the machine."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as problem:
            raise KeptProblem(f"{self.folder} takes nothing: {problem.strerror or problem}.") from problem
