"""Define what was seen of sources: the materialisations of assets, and which sources hold a product's ticks up."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Number, Part, Record, RecordKind


class Materialised(Record, frozen=True, kw_only=True):
    """One materialisation of an asset, or of one partition of it.

    Attributes:
        mark: the materialisation's data version, where somebody gave it; otherwise the version of its Delta table, or
            what its files or rows are.
        uri: where its rows are, as the materialisation or the product says it.
        table: of a database.
        version: of the Delta table at that time, which is read whatever is written later.
        files: a mark of its Parquet files.
        partition: of the asset.
        event: the materialisation's number in Dagster's event log.
        keys: the marks of its rows by key.
        at_utc: when it was materialised.
    """

    mark: str
    uri: str
    table: str | None = None
    version: int | None = None
    files: str | None = None
    partition: str | None = None
    event: int
    keys: dict[str, str] = {}  # noqa: RUF012  # msgspec copies it
    at_utc: str


MATERIALISED = RecordKind(naming.MATERIALISED, Materialised)
"""One ledger per source and key: `materialised/orders/2026-01-01`; `materialised/orders/all` for a whole table."""


class SlowSource(Part, frozen=True, kw_only=True):
    """A source that is slow, or that could not be asked.

    Attributes:
        problem: why it could not be asked; None where it was slow.
        seconds, calls: how long the first such look waited for it, and for how many calls.
        at_utc: when that was, by the product's clock.
    """

    source: str
    problem: str | None = None
    seconds: Number
    calls: int
    at_utc: str


class SlowSources(Record, frozen=True, kw_only=True):
    """The sources that were slow in the newest look."""

    sources: list[SlowSource]


SLOW_SOURCES = RecordKind(naming.SLOW_SOURCES, SlowSources)
