"""Read attempts, releases and overspendings from the ledgers, with a cache, so that a run does not read a year of them.

Records are written once and their numbers have no gaps, so cached records stay valid and only newer numbers are read.
The cache may be lost, damaged or of an older version: then the ledgers are read again. The asset `cost` writes it.
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
"""Number of newest records to read without the cache; an attempt reported by its launcher and its step counts twice."""
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
"""Cached members, per ledger."""

_KINDS: Mapping[str, RecordKind[Any]] = {
    kind.ledger: kind for kind in (ATTEMPTS, BACKTEST_ATTEMPTS, RELEASES, OVERSPENDINGS)
}

Cache = Mapping[str, list[list[Any]]]
"""Pairs of number and record by ledger, oldest first; JSON values."""


class Money(Reader):
    """Attempts and overspendings by number, counted from 1, and their cache."""

    def cached(self) -> Cache:
        """Return the cache; empty lists when it is missing or unusable. One read."""
        try:
            cached = self._ledgers.read(naming.COST, CACHE_NAME)
        except LedgerProblem:
            cached = None
        if member(cached, FORMAT) != cache_format():
            return {ledger: [] for ledger in CACHED_MEMBERS}
        return msgspec.convert(member(cached, RECORDS), Cache)

    def updated_cache(self, cache: Cache) -> Cache:
        """Return the cache plus newer records. One read per new record, and one per ledger."""
        return {
            ledger: [
                *cache[ledger],
                *(
                    [number, dict.fromkeys(names) | record.present(names)]
                    for number, record in self._ledgers.of(_KINDS[ledger]).records(newest_number(cache, ledger) + 1)
                ),
            ]
            for ledger, names in CACHED_MEMBERS.items()
        }

    def attempts(self) -> pl.DataFrame:
        """Return the attempts at trainings and exports as `attempts.SCHEMA`: one row each, the newest first.

        Reads everything in the cache plus one record per newer attempt; without the cache, only the newest
        `ATTEMPTS_READ` records.
        """
        cache = self.cached()
        since = self._ledgers.newest_number(naming.ATTEMPTS) - newest_number(cache, naming.ATTEMPTS)
        new = self._ledgers.of(ATTEMPTS).newest(min(since, ATTEMPTS_READ)) if since > 0 else []
        return _frame([*_cached_attempts(cache, naming.ATTEMPTS), *new])

    def newest_attempts(self, count: int) -> list[Numbered]:
        """Return the attempts in the newest `count` records, one entry each, the oldest first. One read per record."""
        return unique_attempts(self._ledgers.of(ATTEMPTS).newest(count))[::-1]

    def attempt_records(self, kind: RecordKind[Attempt], after: int) -> Iterator[Numbered]:
        """Yield a ledger's attempts after a number, oldest first. One read per record, and one more."""
        return self._ledgers.of(kind).records(after + 1)

    def newest_attempt_number(self, ledger: str) -> int:
        """Return the newest record's number in a ledger of attempts, 0 for none. Two small reads."""
        return self._ledgers.newest_number(ledger)

    def overspendings(self, count: int) -> list[Overspending]:
        """Return up to `count` newest launches over budget, the oldest first. One read per record, and two more."""
        return [record for _, record in reversed(self._ledgers.of(OVERSPENDINGS).newest(count))]

    def is_trained(self, fingerprint: str) -> bool:
        """Tell whether a training is finished. One read."""
        return self._ledgers.of(CHECKPOINTS).read(fingerprint) is not None


def newest_number(cached: Cache, ledger: str) -> int:
    """Return the newest cached number of a ledger; 0 for none."""
    return int(cached[ledger][-1][0]) if cached[ledger] else 0


def attempts(cached: Cache) -> pl.DataFrame:
    """Return the cached attempts at trainings and exports, as `Money.attempts` does."""
    return _frame(_cached_attempts(cached, naming.ATTEMPTS))


def backtests(cached: Cache) -> pl.DataFrame:
    """Return the cached attempts at backtests."""
    return _frame(_cached_attempts(cached, naming.BACKTEST_ATTEMPTS), step=BACKTEST)


def overspendings(cached: Cache) -> list[Excess]:
    """Return the cached launches over budget, the oldest first."""
    ledger = naming.OVERSPENDINGS
    return [EXCESSES.read(record, f"{ledger} {number}") for number, record in cached[ledger]]


def releases(cached: Cache) -> list[tuple[int, Outcome]]:
    """Return the cached releases, the oldest first."""
    return [(number, OUTCOMES.read(record, f"release {number}")) for number, record in cached[naming.RELEASES]]


def _frame(records: list[Numbered], step: str = TRAIN) -> pl.DataFrame:
    from platform_assets.history.attempts import frame  # polars loads with it, and sensors only count

    return frame(records, step)


def _cached_attempts(cached: Cache, ledger: str) -> list[Numbered]:
    return [(number, ATTEMPTS.read(record, f"{ledger} {number}")) for number, record in cached[ledger]]


def cache_format() -> str:
    """Return a digest of the cached members: it changes when a version caches others."""
    return sha256(canonical({ledger: list(names) for ledger, names in CACHED_MEMBERS.items()}))
