"""Look for landed files, with a bounded number of requests per tick.

A mark changes when another file replaces a landed one under the same name. `product.landing` finds deliveries.
"""

from platform_assets.handle import Product
from platform_assets.specs.base import Source
from sensors.changes import Mark


def marks(product: Product) -> Mark:
    """Return a function that returns the mark of a product's landed file. For one tick: listings are kept.

    Raises:
        obstore.exceptions.BaseError, OSError: from the returned function, when the store cannot be read.
    """
    channels = {name: channel.for_tick() for name, channel in product.channels.items()}

    def mark(source: Source, key: str, suffix: str = "") -> str | None:
        return channels[source.name].probe(key, suffix)

    return mark
