"""Judge how fast a product's services answered, from the counts in the records of `predictions`."""

from platform_assets.monitoring import latency
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Latency
from platform_assets.store.records.notes import Predictions


def recent_latency(product: ProductStore, key: str) -> Latency | None:
    """Judge the answers on the newest keys up to this one, at most `performance_window`; None without any count."""
    spec = product.spec
    keys = spec.grain.with_lookback((key,), spec.retraining.performance_window - 1)
    records = product.tables.records("predictions", keys)
    counted = {item: Predictions.of(records[item]).measured for item in keys if item in records}
    # A key without requests neither counts nor ends the window.
    counts = [(item, count.latency) for item, count in reversed(counted.items()) if count]
    newest_first = [(item, requests) for item, requests in counts if requests and requests["requests"]]
    return latency.judge(newest_first, spec.service.latency_ms)
