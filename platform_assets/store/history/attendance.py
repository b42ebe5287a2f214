"""Read what the service's processes sent per key, and when the keys of a recording ended."""

from __future__ import annotations

from platform_assets.store.history.base import Reader
from platform_assets.store.records.attendance import ATTENDANCE, KEY_ENDS, Attendance, KeyEnd


class Attended(Reader):
    """Attendance and announced ends, by key."""

    def attendance(self, key: str) -> Attendance | None:
        """Return what processes sent for a key, or None. One read."""
        return self._ledgers.of(ATTENDANCE).read(key)

    def key_end(self, key: str) -> KeyEnd | None:
        """Return the announced end of a recording's key, or None. One read."""
        return self._ledgers.of(KEY_ENDS).read(key)
