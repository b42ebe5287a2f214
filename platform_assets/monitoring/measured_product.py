"""Define what of a product the measuring of its answers depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_assets.base.keys import Grain
    from platform_assets.evaluation.measures.base import Measures
    from platform_assets.product.fields import Field
    from platform_assets.product.tasks import Task

REACH_WINDOWS = 3
"""The window's keys are searched within this many window lengths; older quality says nothing about today."""


@dataclass(frozen=True, kw_only=True)
class MeasuredProduct:
    """The members of `Product` and its parts by which answers are measured.

    Attributes:
        label: the source that delivers the labels.
        window: number of labelled keys over which quality is measured (`Retraining.performance_window`).
        min_equal_share: see `Monitors`.
        confidence: of intervals, see `Gates`.
    """

    grain: Grain
    lookback: int
    label: str
    fields: tuple[Field, ...]
    task: Task
    measures: Measures
    slices: tuple[str, ...]
    window: int
    min_equal_share: float
    confidence: float

    @property
    def reach(self) -> int:
        """How many keys before a key its window is searched in."""
        return REACH_WINDOWS * self.window - 1

    def keys_before(self, key: str) -> tuple[str, ...]:
        """Return the keys in which the window of a key is searched, without the key itself."""
        return self.grain.with_lookback((key,), self.reach)[:-1]
