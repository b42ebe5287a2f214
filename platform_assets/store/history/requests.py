"""Read requests to the platform, and failed runs."""

from __future__ import annotations

from collections.abc import Iterator

from platform_assets.store.history.base import Reader
from platform_assets.store.records.alerts import FAILURES, Failure
from platform_assets.store.records.requests import ANSWERED, REQUESTS, AdvanceRequest, DecisionRequest
from platform_assets.store.records.slow_sources import SLOW_SOURCES, SlowSource


class Requests(Reader):
    """Requests and failures by number, counted from 1."""

    def requests(self, after: int) -> Iterator[tuple[int, AdvanceRequest | DecisionRequest]]:
        """Yield the requests after a number, oldest first. One read per request, and one more."""
        return self._ledgers.of(REQUESTS).records(after + 1)

    def newest_requests(self, count: int) -> list[tuple[int, AdvanceRequest | DecisionRequest]]:
        """Return up to `count` requests, the newest first. One read per request, and two more."""
        return self._ledgers.of(REQUESTS).newest(count)

    def newest_settled_request(self) -> int:
        """Return the number up to which requests are settled, 0 for none. Three small reads."""
        latest = self._ledgers.of(ANSWERED).latest()
        return 0 if latest is None else latest[1].request

    def slow_sources(self) -> list[SlowSource]:
        """Return the sources that hold the product's ticks up. One read."""
        file = self._ledgers.of(SLOW_SOURCES).read(SLOW_SOURCES.ledger)
        return [] if file is None else file.sources

    def failure(self) -> tuple[int, Failure] | None:
        """Return the newest failed run with its number, or None. Three small reads."""
        return self._ledgers.of(FAILURES).latest()

    def newest_failures(self, count: int) -> list[tuple[int, Failure]]:
        """Return up to `count` failed runs, the newest first. One read per failure, and two more."""
        return self._ledgers.of(FAILURES).newest(count)
