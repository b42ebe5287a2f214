"""Find the product that a run belongs to: by its tag, the name of its job, or the selected assets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_assets.base import naming

if TYPE_CHECKING:
    import dagster as dg


def product_of(run: dg.DagsterRun, products: Iterable[str]) -> str | None:
    """Return the run's product, or None for a run of none of these products, such as another code location's."""
    selected = {key.path[0] for key in run.asset_selection or ()}
    names = {run.tags.get(naming.TAG_PRODUCT), run.job_name.partition("__")[2], *selected}
    return next((name for name in products if name in names), None)
