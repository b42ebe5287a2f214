"""Tell whether a key's rows may be taken in by the wall clock: after its end, and the lag of its channel.

Also the types of what the channels here read with, which nothing imports when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.base import clock
from platform_assets.product.channel_sites import SitedChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandera.polars as pa
    import polars as pl

    Read = Callable[[bytes], pl.DataFrame]
    Schema = Callable[[], pa.DataFrameSchema]


def is_over(channel: SitedChannel, key: str) -> bool:
    """Tell whether a key and the lag are over; without a lag the product's own clock decides elsewhere."""
    over = channel.site.grain.instant_after(key)
    return not channel.lag or over is None or clock.wall() >= over + channel.lag
