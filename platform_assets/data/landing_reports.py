"""Tell Dagster which files landed, by runless materialisations of the folders that they land in: a mark once.

A materialisation makes a key present and fires conditions, so Dagster is asked first what it knows already: the sensor
reports files as they come, and a run those that it takes in before a sensor has looked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import dagster as dg

from platform_assets.base import naming
from platform_assets.product.channels import Channel
from platform_assets.product.spec import Product, Source

VERSION = "dagster/data_version"
MOST = 50
"""Files that one query asks about."""


def landing_key(spec: Product, source: Source) -> dg.AssetKey:
    """Return the key of the folder that a source's files land in, an asset that Dagster only watches."""
    return dg.AssetKey(naming.asset_key(spec.name, "landing", source.name))


def report(
    instance: dg.DagsterInstance,
    spec: Product,
    source: Source,
    channel: Channel,
    marks: Mapping[str, str],
    until_s: float = math.inf,
) -> list[str]:
    """Report the marks by key that Dagster does not know; return the keys whose mark it knows now.

    Args:
        until_s: of `time.perf_counter`, when to stop; one is reported at least.
    """
    asset, done = landing_key(spec, source), list[str]()
    for start in range(0, len(marks), MOST):
        some = [*marks][start : start + MOST]
        known = _known(instance, asset, some)
        for key in some:
            if done and time.perf_counter() > until_s:
                return done
            if known.get(key) != marks[key]:
                event = dg.AssetMaterialization(
                    asset,
                    partition=partition(key),
                    tags={VERSION: marks[key]},
                    metadata={"dagster/uri": channel.cite(key)},
                )
                instance.report_runless_asset_event(event)
            done.append(key)
    return done


def partition(key: str) -> str | None:
    """Return a key as Dagster's partition: None for a slow source."""
    return None if key == naming.UNPARTITIONED else key


def _known(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]) -> dict[str, str]:
    """Return the newest mark of each key that Dagster knows. One query."""
    partitions = [named for key in keys if (named := partition(key)) is not None]
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=partitions or None)
    known: dict[str, str] = {}
    for record in instance.fetch_materializations(wanted, limit=10 * MOST if partitions else 1).records:
        if (event := record.asset_materialization) is not None:
            known.setdefault(record.partition_key or naming.UNPARTITIONED, (event.tags or {}).get(VERSION, ""))
    return known
