"""Define whose a product is: the module that defined it when its first rows were taken in."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Record, RecordKind

FIRST = "first"


class DefinedIn(Record, frozen=True, kw_only=True):
    """The module that defines a product, such as `shop.defs.churn.product`."""

    module: str


DEFINED_IN = RecordKind(naming.DEFINED_IN, DefinedIn)
"""One record, whose key is `FIRST`."""
