"""Record what becomes of keys that an earlier version of the product made: they are made again, or go together."""

from __future__ import annotations

from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.versions import COMPATIBLE, RENEWALS, Compatible, Renewal
from platform_assets.training import versions


def request(product: ProductStore, older: versions.Older, *, usd: float, reason: str, author: str) -> int:
    """Record that older keys are made again, at this price; return the renewal's number."""
    record = Renewal(
        first=older.keys[0],
        last=older.keys[-1],
        versions=versions.current(product.spec),
        usd=round(usd, 6),
        why=reason,
        by=author,
        at_utc=_now(product),
    )
    return product.ledgers.of(RENEWALS).append(record)


def mark_compatible(product: ProductStore, older: versions.Older, *, reason: str, author: str) -> list[Compatible]:
    """Record that the rows of older keys may train together with rows of the present versions; return the records."""
    current, at_utc = versions.current(product.spec), _now(product)
    records = [
        Compatible(stage=stage, versions=(name, current[stage]), why=reason, by=author, at_utc=at_utc)
        for stage, names in versions.names_of(product, older.keys).items()
        for name in names
    ]
    for record in records:
        product.ledgers.of(COMPATIBLE).append(record)
    return records


def _now(product: ProductStore) -> str | None:
    try:
        return product.now.isoformat()
    except LookupError:  # the clock of a recording is not set
        return None
