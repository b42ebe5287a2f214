"""The history whose ledgers a test writes."""

from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers


def of(ledgers: Ledgers) -> History:
    return History(ledgers.root, ledgers.product)
