"""Read attempts and overspendings from the ledgers.

Records are written once and their numbers have no gaps, so the attempts that a check of the budget cached stay valid,
and only newer ones are read. The cache may be lost, damaged or of another version: then all are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from platform_assets.base.problems import LedgerProblem
from platform_assets.store.history.base import Reader
from platform_assets.store.records.attempts import (
    ATTEMPTS,
    ATTEMPTS_SO_FAR,
    OVERSPENDINGS,
    SO_FAR,
    Numbered,
    Overspending,
)
from platform_assets.store.records.models import CHECKPOINTS

if TYPE_CHECKING:
    import polars as pl


class Money(Reader):
    """Attempts and overspendings by number, counted from 1."""

    def attempts(self) -> pl.DataFrame:
        """Return the attempts at trainings and exports as `attempts.SCHEMA`: one row each, the newest first.

        Costs what `attempts_so_far` does.
        """
        from platform_assets.store.history.attempts import frame  # polars loads with it, and sensors read no attempts

        return frame(self.attempts_so_far())

    def attempts_so_far(self) -> list[Numbered]:
        """Return all records of attempts at trainings and exports, the oldest first.

        One read, and one per record that is not cached.
        """
        try:
            cached = self._ledgers.of(ATTEMPTS_SO_FAR).read(SO_FAR)
        except LedgerProblem:
            cached = None
        records = [] if cached is None else list(enumerate(cached.attempts, start=1))
        return [*records, *self._ledgers.of(ATTEMPTS).records(len(records) + 1)]

    def attempt_records(self, after: int) -> Iterator[Numbered]:
        """Yield the records of attempts after a number, oldest first. One read per record, and one more."""
        return self._ledgers.of(ATTEMPTS).records(after + 1)

    def overspendings(self, count: int) -> list[Overspending]:
        """Return up to `count` newest launches over budget, the oldest first. One read per record, and two more."""
        return [record for _, record in reversed(self._ledgers.of(OVERSPENDINGS).newest(count))]

    def checkpoint(self, fingerprint: str) -> str | None:
        """Return the digest of a finished training's manifest, None if it is not finished. One read."""
        record = self._ledgers.of(CHECKPOINTS).read(fingerprint)
        return None if record is None else record.manifest
