"""Tell whether a key's rows may be taken in by the wall clock: after its end, and the lag of its channel."""

from __future__ import annotations

from platform_assets.base import clock
from platform_assets.product.sited import SitedChannel


def is_over(channel: SitedChannel, key: str) -> bool:
    """Tell whether a key and the lag are over; without a lag the product's own clock decides elsewhere."""
    over = channel.site.grain.instant_after(key)
    return not channel.lag or over is None or clock.wall() >= over + channel.lag
