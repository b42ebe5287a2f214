"""Read what was decided about rows of an earlier version."""

from __future__ import annotations

from collections import deque

from platform_assets.store.history.base import Reader
from platform_assets.store.records.versions import COMPATIBLE, RENEWALS, Renewal


class Versions(Reader):
    """Renewals, and statements that versions go together."""

    def compatible_versions(self) -> dict[str, list[tuple[str, str]]]:
        """Return the pairs of versions that go together, by stage. One read per statement, and one more."""
        pairs: dict[str, list[tuple[str, str]]] = {}
        for _, record in self._ledgers.of(COMPATIBLE).records(1):
            pairs.setdefault(record.stage, []).append(record.versions)
        return pairs

    def renewal(self, after: int = 0) -> tuple[int, Renewal] | None:
        """Return the newest renewal after a number, or None. One read per renewal, and one more."""
        return next(iter(deque(self._ledgers.of(RENEWALS).records(after + 1), maxlen=1)), None)
