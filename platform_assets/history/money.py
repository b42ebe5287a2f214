"""Read what the ledgers say about money; a year of attempts is kept at hand, and not read record by record at each run.

Does not belong here: sums (`compute.costs`), or the asset `cost`, which writes the file that is kept.

Records are written once and their numbers have no gaps: what was read stays true, and only newer numbers are read. The
file may be lost, damaged or of an older version: then the ledgers are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from platform_assets import naming
from platform_assets.history.base import Reader
from platform_assets.problems import LedgerProblem
from platform_assets.records.attempts import (
    ATTEMPTS,
    BACKTEST,
    BACKTEST_ATTEMPTS,
    EXCESSES,
    OVERSPENDINGS,
    TRAIN,
    Attempt,
    Excess,
    Numbered,
    Overspending,
    unique_attempts,
)
from platform_assets.records.base import RecordKind
from platform_assets.records.models import CHECKPOINTS
from platform_assets.records.releases import OUTCOMES, RELEASES, Outcome
from platform_assets.records.values import member
from platform_assets.storage.artifacts import canonical, sha256

if TYPE_CHECKING:
    import polars as pl

CACHE_NAME, RECORDS, FORMAT = "gathered", "records", "format"
ATTEMPTS_READ = 400
"""Of the newest records without the file; a try that its launcher and its step both told of is two."""
ATTEMPT_MEMBERS = (
    *("id", "by", "step", "fingerprint", "cutoff", "digest", "reason"),
    *("profile", "is_spot", "usd_per_hour", "on_demand_usd_per_hour"),
    *("requested_at_utc", "started_at_utc", "ended_at_utc", "wall_s", "waited_s"),
    *("resumed_from_step", "steps_done", "steps_saved", "steps_lost"),
)
CACHED_MEMBERS = {
    naming.ATTEMPTS: ATTEMPT_MEMBERS,
    naming.BACKTEST_ATTEMPTS: ATTEMPT_MEMBERS,
    naming.RELEASES: ("channels", "cutoff", "outcome"),
    naming.OVERSPENDINGS: ("cutoff", "fingerprint", "over_usd", "why"),
}
"""What is kept of each ledger's records."""

_KINDS: Mapping[str, RecordKind[Any]] = {
    kind.ledger: kind for kind in (ATTEMPTS, BACKTEST_ATTEMPTS, RELEASES, OVERSPENDINGS)
}

Cache = Mapping[str, list[list[Any]]]
"""Number and record by ledger, oldest first; JSON values."""


class Money(Reader):
    """Attempts and overspendings by number, counted from 1, and what is kept of them."""

    def cached(self) -> Cache:
        """Return what the file holds; nothing where there is none that can be used. One read."""
        try:
            found = self._ledgers.read(naming.COST, CACHE_NAME)
        except LedgerProblem:
            found = None
        if member(found, FORMAT) != cache_format():
            return {ledger: [] for ledger in CACHED_MEMBERS}
        return msgspec.convert(member(found, RECORDS), Cache)

    def updated_cache(self, before: Cache) -> Cache:
        """Return what was kept before, and what was written since. One read per new record, and one per ledger."""
        return {
            ledger: [
                *before[ledger],
                *(
                    [number, dict.fromkeys(names) | record.present(names)]
                    for number, record in self._ledgers.of(_KINDS[ledger]).records(newest_number(before, ledger) + 1)
                ),
            ]
            for ledger, names in CACHED_MEMBERS.items()
        }

    def attempts(self) -> pl.DataFrame:
        """Return the attempts at trainings and exports by `attempts.SCHEMA`: each once, the newest first.

        All that are in the file and those after it, one read per record; of a ledger without the file the newest
        `ATTEMPTS_READ` records.
        """
        before = self.cached()
        since = self._ledgers.newest_number(naming.ATTEMPTS) - newest_number(before, naming.ATTEMPTS)
        new = self._ledgers.of(ATTEMPTS).newest(min(since, ATTEMPTS_READ)) if since > 0 else []
        return _frame([*_kept(before, naming.ATTEMPTS), *new])

    def newest_attempts(self, count: int) -> list[Numbered]:
        """Return what the newest `count` records say of attempts, each once, the oldest first. One read per record."""
        return unique_attempts(self._ledgers.of(ATTEMPTS).newest(count))[::-1]

    def attempt_records(self, kind: RecordKind[Attempt], after: int) -> Iterator[Numbered]:
        """Yield the records of a ledger of attempts after a number, oldest first. One read per record, and one more."""
        return self._ledgers.of(kind).records(after + 1)

    def newest_attempt_number(self, ledger: str) -> int:
        """Return the number of the newest record of a ledger of attempts, 0 for none. Two small reads."""
        return self._ledgers.newest_number(ledger)

    def overspendings(self, count: int) -> list[Overspending]:
        """Return up to `count` newest launches over budget, the oldest first. One read per record, and two more."""
        return [record for _, record in reversed(self._ledgers.of(OVERSPENDINGS).newest(count))]

    def is_trained(self, fingerprint: str) -> bool:
        """Tell whether a training is finished. One read."""
        return self._ledgers.of(CHECKPOINTS).read(fingerprint) is not None


def newest_number(found: Cache, ledger: str) -> int:
    """Return the number of the newest record of a ledger that was gathered; 0 for none."""
    return int(found[ledger][-1][0]) if found[ledger] else 0


def attempts(found: Cache) -> pl.DataFrame:
    """Return the attempts at trainings and exports that were gathered, as `Money.attempts` does."""
    return _frame(_kept(found, naming.ATTEMPTS))


def backtests(found: Cache) -> pl.DataFrame:
    """Return the attempts at backtests that were gathered; they know that they are."""
    return _frame(_kept(found, naming.BACKTEST_ATTEMPTS), step=BACKTEST)


def overspendings(found: Cache) -> list[Excess]:
    """Return a person's words for launches over budget, the oldest first."""
    ledger = naming.OVERSPENDINGS
    return [EXCESSES.read(record, f"{ledger} {number}") for number, record in found[ledger]]


def releases(found: Cache) -> list[tuple[int, Outcome]]:
    """Return the releases, the oldest first."""
    return [(number, OUTCOMES.read(record, f"release {number}")) for number, record in found[naming.RELEASES]]


def _frame(records: list[Numbered], step: str = TRAIN) -> pl.DataFrame:
    from platform_assets.history.attempts import frame  # polars loads with it, and sensors only count

    return frame(records, step)


def _kept(found: Cache, ledger: str) -> list[Numbered]:
    return [(number, ATTEMPTS.read(record, f"{ledger} {number}")) for number, record in found[ledger]]


def cache_format() -> str:
    """Return what a file of this version says of itself."""
    return sha256(canonical({ledger: list(names) for ledger, names in CACHED_MEMBERS.items()}))
