"""Find the newest closed key of a product without listing: a key is closed when its decision is on record.

Belongs here: probing the ledger of decisions. Does not belong here: when a key may be closed (`landings`).
"""

from platform_assets import naming
from platform_assets.keys import Grain
from platform_assets.storage.ledgers import Ledgers


def newest(ledgers: Ledgers, grain: Grain, hint: str | None = None) -> str | None:
    """Return the newest closed key, or None when there is none.

    Keys close in order from the grain's first. One or two small reads with a good hint; without one the end is found
    by doubling and halving.

    Args:
        ledgers: the product's.
        grain: the product's.
        hint: a key that was closed when it was last looked; forgotten when it is not.
    """

    def is_closed(place: int) -> bool:
        if grain.size is not None and place >= grain.size:
            return False
        return ledgers.read(naming.DECISIONS, grain.key_at(place)) is not None

    low = grain.index(hint) if hint is not None and grain.contains(hint) else -1
    if low >= 0 and not is_closed(low):
        low = -1
    step = 1
    while is_closed(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_closed(middle) else (low, middle)
    return grain.key_at(low) if low >= 0 else None
