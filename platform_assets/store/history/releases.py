"""Read releases and verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from platform_assets.store.artifacts import sha256
from platform_assets.store.history.base import Reader
from platform_assets.store.records.refusals import REFUSALS, Refusal
from platform_assets.store.records.releases import RELEASES, Release
from platform_assets.store.records.verdicts import VERDICTS, Verdict


class Releases(Reader):
    """Releases by number, counted from 1, and verdicts by digest."""

    def live(self) -> tuple[int, Release] | None:
        """Return the newest release with its number, or None. Three small reads."""
        return self._ledgers.of(RELEASES).latest()

    def release(self, number: int) -> Release | None:
        """Return a release, or None. One read."""
        return self._ledgers.of(RELEASES).at(number)

    def releases(self, first: int = 1) -> Iterator[tuple[int, Release]]:
        """Yield the releases from a number on, oldest first. One read per release, and one more."""
        return self._ledgers.of(RELEASES).records(first)

    def newest_releases(self, count: int) -> list[tuple[int, Release]]:
        """Return up to `count` releases, the newest first. One read per release, and two more."""
        return self._ledgers.of(RELEASES).newest(count)

    def releases_newest_first(self) -> Iterator[tuple[int, Release]]:
        """Yield releases, the newest first, reading each one only when it is needed."""
        for number in range(self.newest_release(), 0, -1):
            record = self.release(number)
            if record is not None:
                yield number, record

    def newest_release(self) -> int:
        """Return the number of the newest release, 0 for none. Two small reads."""
        return self._ledgers.of(RELEASES).newest_number()

    def refusal(self) -> Refusal | None:
        """Return the newest refusal of a release, None if there is none or a release followed. Five small reads."""
        newest = self._ledgers.of(REFUSALS).latest()
        return newest[1] if newest is not None and newest[1].release == self.newest_release() else None

    def release_sha256(self, number: int) -> str | None:
        """Return the hash of a release's bytes, or None. One read."""
        data = self._ledgers.stored(RELEASES.ledger, f"{number:08d}")
        return sha256(data) if data else None

    def stored_verdict(self, digest: str) -> tuple[bytes, Verdict] | None:
        """Return the verdict on a bundle with its bytes, or None. One read."""
        return self._ledgers.of(VERDICTS).stored(digest)

    def verdict(self, digest: str) -> Verdict | None:
        """Return the verdict on a bundle, or None. One read."""
        return self._ledgers.of(VERDICTS).read(digest)
