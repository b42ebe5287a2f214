"""Look for landed files: a mark that tells a file from another at the same place.

Belongs here: one look at the sources of a product per tick, with a bounded number of requests. Does not belong here:
which keys are looked for (`landings`, `changes`), or how a delivery is found (`product.landing`).
"""

from platform_assets.handle import Product
from platform_assets.specs.base import Source
from sensors.changes import Mark


def marks(product: Product) -> Mark:
    """Return what looks for a product's landed files, for one tick: what was listed is not listed again.

    Raises:
        obstore.exceptions.BaseError, OSError: on a call, when the store cannot be read.
    """
    channels = {name: channel.for_tick() for name, channel in product.channels.items()}

    def mark(source: Source, key: str, beside: str = "") -> str | None:
        return channels[source.name].probe(key, beside)

    return mark
