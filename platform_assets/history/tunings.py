"""Read the searches for settings of a product."""

from __future__ import annotations

from platform_assets.history.base import Reader
from platform_assets.records.tunings import TRIALS, TUNINGS, Trial, Tuning


class Tunings(Reader):
    """Searches by `driftline tune`, and their trials."""

    def tuning(self, study: str | None = None) -> Tuning | None:
        """Return a search, or the newest; None if there is none. One small read per search, the newest first."""
        ledger = self._ledgers.of(TUNINGS)
        for number in range(ledger.newest_number(), 0, -1):
            record = ledger.at(number)
            if record is not None and study in (None, record.study):
                return record
        return None

    def trial(self, study: str, number: int) -> Trial | None:
        """Return an ended trial of a search. One small read."""
        return self._ledgers.of(TRIALS.of(study)).at(number)

    def trials(self, study: str) -> list[tuple[int, Trial]]:
        """Return the ended trials of a search with their numbers, from 1. One small read each."""
        return list(self._ledgers.of(TRIALS.of(study)).records())
