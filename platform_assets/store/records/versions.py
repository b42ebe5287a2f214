"""Define which code and content rows come from: the product's module, versions that go together, renewals, rebuilds."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Record, RecordKind

FIRST = "first"


class DefinedIn(Record, frozen=True, kw_only=True):
    """The module that defines a product, such as `shop.defs.churn.product`."""

    module: str


DEFINED_IN = RecordKind(naming.DEFINED_IN, DefinedIn)
"""One record, whose key is `FIRST`."""


class Compatible(Record, frozen=True, kw_only=True):
    """Rows of two versions of a stage may train together; `stage` is its full name, such as `validated_weather`."""

    stage: str
    versions: tuple[str, str]
    why: str
    by: str
    at_utc: str | None


class Renewal(Record, frozen=True, kw_only=True):
    """The keys of a range whose rows an earlier version made are made again, in runs of a bounded number of keys.

    Attributes:
        versions: the present ones by stage; when one changes, the renewal is over.
        usd: what it was expected to cost.
    """

    first: str
    last: str
    versions: dict[str, str]
    usd: Number
    why: str
    by: str
    at_utc: str | None


COMPATIBLE = RecordKind(naming.COMPATIBLE, Compatible)
RENEWALS = RecordKind(naming.RENEWALS, Renewal)


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
