"""Read how fast a product's services answered, from what the records of `predictions` count.

Belongs here: reading. Does not belong here: counting or judging (`compute.latency`).
"""

from platform_assets.compute import latency
from platform_assets.handle import Product
from platform_assets.records.decisions import Latency
from platform_assets.records.notes import Predictions

STAGE = "predictions"


def recent_latency(product: Product, key: str) -> Latency | None:
    """Judge the answers on the newest keys up to one, at most `performance_window`; None where none was counted."""
    spec = product.spec
    keys = spec.grain.with_lookback((key,), spec.retraining.performance_window - 1)
    records = product.tables.records(STAGE, keys)
    measured = {each: Predictions.of(records[each]).measured for each in keys if each in records}
    # A key without requests, or of older code, neither counts nor ends the window.
    counts = [(each, found.latency) for each, found in reversed(measured.items()) if found]
    newest_first = [(each, found) for each, found in counts if found and found["requests"]]
    return latency.judge(newest_first, spec.service.latency_ms)
