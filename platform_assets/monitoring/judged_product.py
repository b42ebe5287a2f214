"""Define what of a product the judgement of its keys depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.product.windows import Tables, Window

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.base.keys import Grain
    from platform_assets.product.fields import Field
    from platform_assets.product.monitoring import Monitors
    from platform_assets.product.sources import Source
    from platform_assets.product.tasks import Task


@dataclass(frozen=True, kw_only=True)
class JudgedProduct:
    """The members of `Product` by which keys are judged."""

    name: str
    is_live: bool
    grain: Grain
    sources: tuple[Source, ...]
    lookback: int
    features: Callable[[Tables, Window], pl.DataFrame]
    fields: tuple[Field, ...]
    task: Task
    monitors: Monitors

    @property
    def label_source(self) -> Source:
        """The one source that delivers labels."""
        return next(source for source in self.sources if source.is_label)

    @property
    def feature_sources(self) -> tuple[Source, ...]:
        """The sources that `features` reads."""
        return tuple(source for source in self.sources if not source.is_label)

    def source(self, name: str) -> Source:
        """Return a source by name."""
        return next(source for source in self.sources if source.name == name)
