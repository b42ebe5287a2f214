"""Read how far the prediction log was ingested, and the decision on each key."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from platform_assets.store.history.base import Reader
from platform_assets.store.records.claims import CLAIMS, PRUNED, Claim
from platform_assets.store.records.decisions import DECISIONS, Decision
from platform_assets.store.records.ingested import INGESTED, Ingested


class Decisions(Reader):
    """Decisions by key; a decision closes its key."""

    def ingested(self) -> tuple[int, Ingested] | None:
        """Return how far the prediction log was ingested, with the record's number, or None. Three small reads."""
        return self._ledgers.of(INGESTED).latest()

    def ingested_at(self, number: int) -> Ingested | None:
        """Return the record of an ingestion, or None. One read."""
        return self._ledgers.of(INGESTED).at(number)

    def claim(self) -> tuple[int, Claim] | None:
        """Return the newest claim of segments with its number, or None. Three small reads."""
        return self._ledgers.of(CLAIMS).latest()

    def claim_at(self, number: int) -> Claim | None:
        """Return a claim, or None. One read."""
        return self._ledgers.of(CLAIMS).at(number)

    def pruned(self) -> int:
        """Return up to which claim segments were deleted, 0 for none. One read."""
        hint = self._ledgers.of(PRUNED).read(PRUNED.ledger)
        return 0 if hint is None else hint.claim

    def decision(self, key: str) -> Decision | None:
        """Return the decision on a key, or None. One read."""
        return self._ledgers.of(DECISIONS).read(key)

    def is_decided(self, key: str) -> bool:
        """Tell whether a key is closed. One read."""
        return self._ledgers.read(DECISIONS.ledger, key) is not None

    def decisions(self, keys: Iterable[str]) -> dict[str, Decision]:
        """Return the existing decisions on these keys. One read per key."""
        pairs = ((key, self.decision(key)) for key in keys)
        return {key: record for key, record in pairs if record is not None}

    def closed_at(self, keys: Iterable[str]) -> dict[str, datetime]:
        """Return when the closed ones of these keys were decided. One read per key."""
        return {key: datetime.fromisoformat(record.at_utc) for key, record in self.decisions(keys).items()}
