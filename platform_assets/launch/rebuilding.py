"""Price what it takes to make older keys again, and say who does it and when; which keys those are is
`training.versions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.launch import prices
from platform_assets.training import versions

if TYPE_CHECKING:
    from platform_assets.store.product_store import ProductStore
    from platform_assets.training.versions import Older


def usd(behind: Older) -> float:
    """Return what making the keys again costs, in US dollars."""
    return prices.usd_of(behind.cpu_s)


def price(behind: Older) -> str:
    """Return what a rebuild costs, as a clause."""
    return f"making them again takes about {behind.cpu_s:,.0f} CPU seconds, {usd(behind):.2g} USD, by their own records"


def limit_usd(product: ProductStore) -> float:
    """Return up to which price older keys are made again without asking: as stated, or that of one training."""
    limit = product.spec.retraining.rebuild_usd
    return prices.next_training(product.spec, product.history.attempts()).usd if limit is None else limit


def outlook(product: ProductStore, behind: Older) -> str:
    """Return what becomes of older keys: who makes them again, when, at which price."""
    number = versions.renewing(product, behind)
    if number is not None:
        return f"renewal {number} makes them again, the newest first; {price(behind)}"
    limit = limit_usd(product)
    if usd(behind) <= limit:
        return f"the next training has them made again first; {price(behind)}"
    return (
        f"the next training waits for a person: {price(behind)}, and at most {limit:.2g} USD are spent without asking "
        "(Retraining.rebuild_usd)"
    )
