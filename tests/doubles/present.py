"""The versions of rows that a product's present code would make."""

from platform_assets.product.spec import Product
from platform_assets.store.partition_records import Versions
from platform_assets.training import versions


def of(spec: Product, stage: str) -> Versions:
    """Return the versions on the record of `features` or `outcomes`; none for other stages."""
    if stage not in (versions.FEATURES, versions.OUTCOMES):
        return {}
    current = versions.current(spec)
    return {name: (current[name],) for name in versions.chain(spec, stage)}
