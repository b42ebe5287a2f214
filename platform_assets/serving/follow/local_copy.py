"""Keep a copy of the last good bundle and the highest release number on local disk, for a start without the store.

One folder per product, shared by the processes of a machine. A bundle is verified when it is read; the small file that
names it is replaced as a whole, after the blobs are on disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from platform_assets.base import naming, private_folders
from platform_assets.base.problems import Problem
from platform_assets.serving.follow.releases import Release
from platform_assets.store import durable
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.records.releases import Digest
from platform_assets.training.sealed import MANIFEST_BYTES_MAX, Sealed

FORMAT = 1
NAME = "kept.json"


class LocalCopyProblem(Problem):
    """The local copy cannot be read or written; the message names the file."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `kept.json`.

    Attributes:
        highest, highest_digest: the newest release that was ever followed, and its bundle.
        release, digest: the newest release whose bundle is copied, None before the first.
        highest_sha256: the hash of the record of `highest`.
    """

    format: int
    highest: int
    highest_digest: Digest
    release: int | None = None
    digest: Digest | None = None
    highest_sha256: Digest | None = None


def _note_of(release: Release) -> Note:
    """Return the note of a machine that has followed a release, and copied none."""
    return Note(
        format=FORMAT,
        highest=release.number,
        highest_digest=release.digest,
        highest_sha256=release.sha256 or None,
    )


class LocalCopy:
    """The local copy of one product."""

    def __init__(self, folder: Path) -> None:
        """Set the folder; it is created with the first copy."""
        self.folder = folder

    def read(self) -> Note | None:
        """Return the note, or None if there is no copy.

        Raises:
            LocalCopyProblem: it cannot be read.
        """
        try:
            note = msgspec.json.decode((self.folder / NAME).read_bytes(), type=Note)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise LocalCopyProblem(
                f"{self.folder / NAME} cannot be read: {problem}. Remove it to start without a copy."
            ) from None
        if note.format != FORMAT:
            raise LocalCopyProblem(f"{self.folder / NAME} has format {note.format}; expected {FORMAT}. Remove it.")
        return note

    @property
    def store(self) -> ArtifactStore:
        """The blobs of the copy."""
        return ArtifactStore(str(self.folder))

    def confirm(self) -> None:
        """Record that the store still names the copy as the newest."""
        with contextlib.suppress(OSError):  # the copy stays good; it only looks older than it is
            os.utime(self.folder / NAME)

    def confirmed(self) -> datetime | None:
        """Return when the store last confirmed the copy, in UTC; None without a copy."""
        try:
            return datetime.fromtimestamp((self.folder / NAME).stat().st_mtime, UTC)
        except OSError:
            return None

    def note(self, release: Release) -> None:
        """Record the number of a release that may be followed, before its bundle is loaded.

        Raises:
            LocalCopyProblem: it cannot be written.
        """
        with self._locked():
            note = self._valid_note()
            if note is None:
                self._write(_note_of(release))
            elif note.highest < release.number:
                self._write(replace(_note_of(release), release=note.release, digest=note.digest))

    def copy(self, source: ArtifactStore, release: Release, sealed: Sealed) -> None:
        """Copy what serving uses of a bundle that answers, and remove the blobs of others.

        Args:
            source: the store, for the bundle's manifest.
            release: of the bundle.
            sealed: the bundle's verified blobs.

        Raises:
            LocalCopyProblem: it cannot be written.
            ArtifactProblem: the store does not return the bundle any more.
        """
        blobs = {release.digest: source.get(release.digest, bytes_max=MANIFEST_BYTES_MAX)}
        named = source.bundle(release.digest, MANIFEST_BYTES_MAX).manifest["blobs"]
        blobs |= {named[name]["sha256"]: data for name, data in sealed.blobs.items()}
        with self._locked():
            note = self._valid_note()
            if note is not None and (note.release or 0) > release.number:  # another process of this machine was ahead
                return
            kept = self.store
            for digest, data in sorted(blobs.items()):
                if not kept.is_whole(digest):
                    durable.replace(self.folder / naming.blob_path(digest), data)
            newest = note if note is not None and note.highest > release.number else _note_of(release)
            self._write(replace(newest, release=release.number, digest=release.digest))
            # The last step: a kill before it leaves blobs that no note names, never a note without its blobs.
            for path in (self.folder / naming.blob_path("0" * 64)).parents[1].glob("*/*"):
                if path.name not in blobs:
                    path.unlink()

    def _valid_note(self) -> Note | None:
        """Return the note; None, so that it is rewritten, if it cannot be read."""
        try:
            return self.read()
        except LocalCopyProblem:
            return None

    def _write(self, note: Note) -> None:
        durable.replace(self.folder / NAME, msgspec.json.encode(note))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder against the machine's other processes."""
        try:
            private_folders.make_folder(self.folder)
            with durable.locked(self.folder):
                yield
        except OSError as problem:
            raise LocalCopyProblem(f"{self.folder} cannot be written: {problem.strerror or problem}.") from problem
