"""Look at the newest materialisations of the assets that are sources, as a run would, and note nothing in the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from platform_assets.base.settings import Settings
from platform_assets.data.materialisations import SourceAsset
from platform_assets.product.channels import Channel
from platform_assets.product.host_assets import HostAsset
from platform_assets.product.spec import Product
from platform_assets.store import landing
from platform_assets.store.host_rows import AssetProblem
from platform_assets.store.product_store import ProductStore

MOST_KEYS = 400
"""How many partitions are looked at."""


@contextmanager
def newest(home: Path, spec: Product, settings: Settings) -> Iterator[Mapping[str, Channel]]:
    """Yield the channels of sources that are assets, with what Dagster knows of these now, until the block ends.

    Empty where there are none. An asset whose rows cannot be found keeps the channel of the store.

    Args:
        home: of the Dagster that materialises them.
    """
    sources = [source for source in spec.sources if source.asset is not None]
    if not sources:
        yield {}
        return
    with TemporaryDirectory() as root, dg.DagsterInstance.from_config(str(home)) as instance:
        noting = ProductStore(spec, settings.model_copy(update={"root": root}))
        channels = landing.channels(spec, settings.root)
        for source in sources:
            assert source.asset is not None
            try:
                noted = SourceAsset(instance=instance, product=noting, source=source, graph=None)
                noted.note_newest(_keys(spec, source.asset, instance))
            except AssetProblem:  # such as one whose definition alone says where its rows are
                continue
            channels[source.name] = noting.channels[source.name]
        yield {source.name: channels[source.name] for source in sources}


def _keys(spec: Product, asset: HostAsset, instance: dg.DagsterInstance) -> list[str]:
    """Return the newest keys for which an asset has a partition."""
    partitions = instance.get_materialized_partitions(dg.AssetKey(asset.path))
    keys = partitions if asset.key_of is None else {asset.key_of(partition) for partition in partitions}
    return sorted((key for key in keys if key and spec.grain.contains(key)), key=spec.grain.index)[-MOST_KEYS:]
