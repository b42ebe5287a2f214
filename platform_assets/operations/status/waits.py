"""Say what the next key of a product waits for: its end, a delivery, or a sensor."""

from __future__ import annotations

from datetime import datetime

from platform_assets.base.keys import KeyProblem
from platform_assets.store.product_store import ProductStore


def next_event(product: ProductStore, closed: str | None, now: datetime | None) -> str | None:
    """Return what must happen before the next key closes, as part of a sentence; None without a key or a clock.

    Looks for landed files alone: other channels may take long to ask.

    Args:
        closed: the newest key that is closed.
    """
    spec = product.spec
    if now is None:
        return None
    try:
        key = spec.grain.first if closed is None else spec.grain.shift(closed, 1)
    except KeyProblem:  # the grain ends there
        return None
    opens = spec.closes_from(key)
    if opens is not None and now < opens:
        return f"the end of {key}, {opens:%Y-%m-%d %H:%M} UTC"
    keyed = [source for source in spec.feature_sources if not source.is_slow and source.is_landed]
    missing = [source for source in keyed if product.channels[source.name].probe(key) is None]
    due = [moment for source in missing if (moment := spec.due_at(source, key)) is not None]
    if missing and (not due or now < max(due)):
        files = " and ".join(product.channels[source.name].cite(key) for source in missing)
        return files + (f"; without it {key} closes at {max(due):%Y-%m-%d %H:%M} UTC" if due else "")
    return f"a sensor, which closes {key} within seconds while Dagster's daemon runs (on a laptop: `make dev`)"
