"""Define requests to build all keys with the slow tables of today, and the snapshots that were taken for one."""

from __future__ import annotations

from platform_assets.store.records.base import Record, RecordKind


class Rebuild(Record, frozen=True, kw_only=True):
    """A person's request to build the features of all keys with the slow tables of today."""

    why: str
    by: str
    at_utc: str | None


class RebuildSnapshots(Record, frozen=True, kw_only=True):
    """What a rebuild's first run took, so that later runs go on with the same.

    Attributes:
        snapshots: content digests, by the stage of the slow table.
        last: the last key that had features then; the rebuild covers the keys up to it.
    """

    snapshots: dict[str, str]
    last: str
    at_utc: str | None


REBUILDS = RecordKind("rebuilds", Rebuild)
REBUILD_SNAPSHOTS = RecordKind("rebuild_snapshots", RebuildSnapshots)
