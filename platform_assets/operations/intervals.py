"""Show an interval of a measure within the measure's own range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.measure import Measure
    from platform_assets.store.records.performance import Interval


def inside(interval: Interval | None, measure: Measure) -> Interval | None:
    """Return an interval that ends where its measure does: one of few keys may reach beyond, such as above AUC 1."""
    if interval is None or interval.low is None or interval.high is None:
        return interval
    low = interval.low if measure.lowest is None else max(interval.low, measure.lowest)
    high = interval.high if measure.highest is None else min(interval.high, measure.highest)
    return replace(interval, low=low, high=high)
