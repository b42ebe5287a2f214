"""Read an asset's rows in a notebook or a shell: `defs.load_asset_value(["orders", "features"], ...)`.

An IO manager that only reads. Assets write their tables themselves, because a training pod has no Dagster and must use
the same paths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.base import naming
from platform_assets.engine.store_resource import StoreResource

if TYPE_CHECKING:
    import polars as pl


class TableReader(dg.IOManager):
    """The rows of stages, by partition key."""

    def __init__(self, store: StoreResource) -> None:
        """Read below a store's root, which is looked up at each read."""
        self._store = store

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        """Return the rows of an asset's partitions, verified, with a column `key`.

        Raises:
            ValueError: the asset has no rows, such as a checkpoint.
            MissingPartitions: some keys were not materialised; it names them.
            TableProblem: rows are damaged.
        """
        product, stage = context.asset_key.path
        keys = context.asset_partition_keys if context.has_asset_partitions else [naming.UNPARTITIONED]
        tables = self._store.tables(product)
        if tables.types(stage):
            return tables.read(stage, keys)
        artifacts = [
            f"its artifact of {key} is {record.content_digest}" for key, record in tables.records(stage, keys).items()
        ]
        raise ValueError(
            f"{'; '.join([f'{product}/{stage} has no rows to load', *artifacts])}. Blobs and bundles are read by "
            "`StoreResource().artifacts`."
        )

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuse: nothing is written through this manager.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{context.asset_key.to_user_string() if context.has_asset_key else context.name} returned a value of type "
            f"{type(obj).__name__} to be stored; assets here write their tables themselves: return a MaterializeResult."
        )
