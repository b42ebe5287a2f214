"""Tell Dagster which files landed, by runless materialisations of the folders that they land in: a mark once.

What else happens to a file is an observation.

A materialisation makes a key present and fires conditions, so Dagster is asked first what it knows already: the sensor
reports files as they come, at most `MOST` per tick, and a run those that it takes in before a sensor has looked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import islice

import dagster as dg
import msgspec

from platform_assets.base import naming
from platform_assets.data.landed_marks import Marks
from platform_assets.product.channels import Channel
from platform_assets.product.spec import Product, Source
from platform_assets.store.product_store import ProductStore

VERSION = "dagster/data_version"
MOST = 50
"""Files that one query asks about."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the files that a sensor looks at, by `source key`.

    Attributes:
        reported: the mark that Dagster knows.
        waiting: marks of complete files that are still to be reported.
    """

    reported: dict[str, str] = msgspec.field(default_factory=dict)
    waiting: dict[str, str] = msgspec.field(default_factory=dict)


def follow(
    instance: dg.DagsterInstance,
    product: ProductStore,
    state: State,
    complete: Mapping[str, str],
    look: Marks,
    until_s: float,
) -> State:
    """Report the complete files that are new, and those that are gone; return the state for the next tick.

    Args:
        complete: marks of the complete files that this tick looked at.
        look: the tick's look.
        until_s: of `time.perf_counter`, when to stop.
    """
    spec = product.spec
    landing = {source.name: source for source in spec.sources if source.is_landed}
    seen = {name: value for name, value in complete.items() if name.partition(" ")[0] in landing}
    for name in state.reported.keys() - seen.keys():
        source_name, _, key = name.partition(" ")
        if source_name in landing and look.is_absent(landing[source_name], key):
            observe(instance, spec, landing[source_name], key, "it was deleted before it was taken in")
    reported = {name: value for name, value in state.reported.items() if name in seen}
    waiting = state.waiting | {name: value for name, value in seen.items() if reported.get(name) != value}
    new, done = dict(islice(waiting.items(), MOST)), dict[str, str]()
    for source_name, source in landing.items() if new else ():
        marks = {name.partition(" ")[2]: value for name, value in new.items() if name.partition(" ")[0] == source_name}
        known = report(instance, spec, source, product.channels[source_name], marks, until_s)
        done |= {f"{source_name} {key}": marks[key] for key in known}
    return State(
        reported=reported | {name: value for name, value in done.items() if name in seen},
        waiting={name: value for name, value in waiting.items() if name not in done},
    )


def observe(instance: dg.DagsterInstance, spec: Product, source: Source, key: str, reason: str) -> None:
    """Report what happened to a file that nothing follows from by itself."""
    if source.is_landed:
        event = dg.AssetObservation(
            landing_key(spec, source),
            partition=partition(key),
            description=f"{source.name} of {key}: {reason}.",
        )
        instance.report_runless_asset_event(event)


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
        # One query per page: the newest mark of each key that Dagster knows.
        partitions = [named for key in some if (named := partition(key)) is not None]
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=partitions or None)
        known: dict[str, str] = {}
        for record in instance.fetch_materializations(wanted, limit=10 * MOST if partitions else 1).records:
            if (event := record.asset_materialization) is not None:
                known.setdefault(record.partition_key or naming.UNPARTITIONED, (event.tags or {}).get(VERSION, ""))
        for key in some:
            if done and time.perf_counter() > until_s:
                return done
            # The same version once more would fire the conditions of a host's assets again.
            if known.get(key) != marks[key]:
                materialisation = dg.AssetMaterialization(
                    asset,
                    partition=partition(key),
                    tags={VERSION: marks[key]},
                    metadata={"dagster/uri": channel.cite(key)},
                )
                instance.report_runless_asset_event(materialisation)
            done.append(key)
    return done


def partition(key: str) -> str | None:
    """Return a key as Dagster's partition: None for a slow source."""
    return None if key == naming.UNPARTITIONED else key
