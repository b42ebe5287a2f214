"""The versions of rows that a product's present code would make."""

from __future__ import annotations

from platform_assets.facts import versions
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.records import Versions


def of(spec: ProductSpec, stage: str) -> Versions:
    """Return the versions on the record of `features` or `outcomes`; none for other stages."""
    if stage not in (versions.FEATURES, versions.OUTCOMES):
        return {}
    current = versions.current(spec)
    return {name: (current[name],) for name in versions.chain(spec, stage)}
