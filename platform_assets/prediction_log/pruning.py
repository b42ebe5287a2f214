"""Delete segments that were taken in long ago, by the claims that name them, and the parts made of them.

Nothing is listed: what no claim names as taken, or a claim names as unusable, stays for a person.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from platform_assets.prediction_log.folding import finished
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.store import objects
from platform_assets.store.parts import Parts
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.prediction_log import PRUNED, Pruned
from platform_assets.store.upkeep import Removed

RETENTION_DAYS = 30
LEAST_DAYS = 1
"""The segments of the last day tell which processes were alive in a key."""


def prune(product: ProductStore, *, now: datetime, dry_run: bool, retention_days: int = RETENTION_DAYS) -> Removed:
    """Delete the segments of finished claims that are older than the retention; return their number and size.

    Args:
        now: by the store's clock.
        dry_run: only count.
        retention_days: minimum age of a segment, at least `LEAST_DAYS`.

    Raises:
        obstore.exceptions.BaseError, OSError: the store failed; what was deleted by then is gone.
    """
    if retention_days < LEAST_DAYS:
        raise ValueError(f"retention_days is {retention_days}; expected at least {LEAST_DAYS}.")
    before_ms = (now - timedelta(days=retention_days)).timestamp() * 1000
    store, removed = objects.open_store(product.settings.root), Removed()
    newest = product.history.claim()
    # Parts of a finished claim may not be folded yet: until then they alone hold its answers.
    until = 0 if newest is None else min(finished(product.history), newest[1].folded)
    last = first = product.history.pruned()
    for number in range(first + 1, until + 1):
        claim = product.history.claim_at(number)
        # Cursors never go back, so all later claims are newer.
        if claim is None or claim.cursor_ms >= before_ms:
            break
        for path in claim.segments:
            size = objects.size(store, path)
            # S3 deletes what is not there without an error, so only what has a size is counted.
            if size is not None and (dry_run or objects.remove(store, path)):
                removed += Removed(1, size)
        last = number
    if last > first and not dry_run:
        # Before the record: a run that is killed here starts at the same claim again.
        Parts(product.settings.root, product.name, STAGE).remove(last)
        product.ledgers.of(PRUNED).overwrite(PRUNED.ledger, Pruned(claim=last))
    return removed
