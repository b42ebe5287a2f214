"""Read the trainings of a product."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from platform_assets.store.history.base import Reader
from platform_assets.store.records.trainings import TRAININGS, Training

MOST_READ = 100


class Trainings(Reader):
    """Finished trainings by number, counted from 1: those of the loop and of `driftline train`."""

    def trainings_newest_first(self) -> Iterator[tuple[int, Training]]:
        """Yield trainings, the newest first, reading each only when it is needed. Two small reads, and one each."""
        ledger = self._ledgers.of(TRAININGS)
        for number in range(ledger.newest_number(), 0, -1):
            record = ledger.at(number)
            if record is not None:
                yield number, record

    def training_of(self, checkpoint: str) -> Training | None:
        """Return the newest training that made a checkpoint, among the newest `MOST_READ`; None if there is none."""
        newest = islice(self.trainings_newest_first(), MOST_READ)
        return next((record for _, record in newest if record.checkpoint == checkpoint), None)
