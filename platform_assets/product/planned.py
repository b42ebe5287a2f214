"""Count the events Dagster plans for a run over a range of keys, and derive how many keys one run may take.

The counts follow from a product's sources alone; a test compares them with the number of assets (`stages`).

Dagster writes one event per key and keyed asset before the first step of a run, inside the tick that requests it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from platform_assets.base.wording import counted

if TYPE_CHECKING:
    from platform_assets.product.spec import Product

MOST_EVENTS = 750
"""10 s of a tick's 60 s, at 13 ms per event. A count, not a time, so that ranges do not depend on the machine."""
EVENT_S = 0.033
"""Per key and asset on SQLite: 13 ms for the planned event, 20 ms for the materialisation."""
RUN_S = 5.0
"""Per run, from the tick to the run's first step."""
PER_SOURCE = ("raw", "validated", "quarantine")
PER_KEY = ("features", "outcomes", "predictions", "drift", "performance", "decision")
_YEAR = timedelta(days=365)


def per_key(spec: Product) -> int:
    """Count the events a run of `advance__product` plans per key."""
    return len(PER_SOURCE) * sum(not source.is_slow for source in spec.sources) + len(PER_KEY)


def per_run(spec: Product) -> int:
    """Count the events a run of `advance__product` plans regardless of its keys."""
    return len(PER_SOURCE) * sum(source.is_slow for source in spec.sources)


def keys_per_run(spec: Product) -> int:
    """Return the most keys one run may take so that it plans at most `MOST_EVENTS`; at least one."""
    return max(1, (MOST_EVENTS - per_run(spec)) // per_key(spec))


def history(spec: Product) -> str:
    """Estimate in words how long Dagster's events for a year of history take, or for all batches without a period."""
    over = spec.grain.instant_after(spec.grain.first)
    if over is None:
        count, extent = spec.grain.size or 0, "all of the recording"
    else:
        count, extent = round(_YEAR / (over - spec.grain.instant(spec.grain.first))), "a year of history"
    most = keys_per_run(spec)
    runs = -(-count // most)
    minutes = (count * per_key(spec) * EVENT_S + runs * (per_run(spec) * EVENT_S + RUN_S)) / 60
    many = f"{counted(runs, 'run')} of at most {counted(most, 'key')}"
    return (
        f"{extent} is advanced in {many}; expect {max(1, round(minutes)):,} min for Dagster's events of "
        f"{counted(count, 'key')} in addition to reading and computing"
    )
