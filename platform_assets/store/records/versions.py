"""Define what is decided about rows of an earlier version: they are made again, or train with the present ones."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Record, RecordKind


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
