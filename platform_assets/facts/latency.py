"""Read how fast a product's services answered, from what the records of `predictions` count.

Belongs here: reading. Does not belong here: counting or judging (`compute.latency`).
"""

from platform_assets.compute import latency
from platform_assets.records.decisions import Latency
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import TableStore

STAGE = "predictions"


def up_to(spec: ProductSpec, tables: TableStore, key: str) -> Latency | None:
    """Judge the answers on the newest keys up to one, at most `performance_window`; None where none was counted."""
    keys = spec.grain.with_lookback((key,), spec.retraining.performance_window - 1)
    records = tables.records(STAGE, keys)
    counts = {each: records[each].notes.get("measured", {}).get("latency") for each in keys if each in records}
    # A key without requests, or of older code, neither counts nor ends the window.
    newest_first = [(each, found) for each, found in reversed(counts.items()) if found and found["requests"]]
    return latency.judged(newest_first, spec.service.latency_ms)
