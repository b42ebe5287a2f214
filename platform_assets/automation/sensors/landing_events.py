"""Report to Dagster what lands: each complete file once as a materialisation, other changes as observations.

A materialisation makes a key present and fires conditions, so a mark is never reported twice: the cursor has what was
reported, and Dagster is asked about the rest, in one query per source with something new.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice

import dagster as dg
from msgspec import field

from platform_assets.automation.sensors import landed_files, ticks
from platform_assets.base import naming
from platform_assets.data.raw import landing_key
from platform_assets.product.spec import Product, Source

VERSION = "dagster/data_version"
MOST = 50
"""Files that one tick reports; the others wait for the next one."""


class State(ticks.State, frozen=True, kw_only=True):
    """What is known of the files that are looked at, by `source key`.

    Attributes:
        reported: the mark that Dagster knows.
        waiting: marks of complete files that are still to be reported.
    """

    reported: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


def follow(tick: ticks.ProductTick, state: State, complete: Mapping[str, str], mark: landed_files.Marks) -> State:
    """Report the complete files that are new, and those that are gone; return the state for the next tick.

    Args:
        complete: marks of the complete files that this tick looked at.
        mark: the tick's look.
    """
    spec = tick.spec
    landing = {source.name: source for source in spec.sources if source.is_landed}
    seen = {name: value for name, value in complete.items() if name.partition(" ")[0] in landing}
    for name in state.reported.keys() - seen.keys():
        source, _, key = name.partition(" ")
        if source in landing and mark.is_absent(landing[source], key):
            observe(tick.instance, spec, landing[source], key, "it was deleted before it was taken in")
    reported = {name: value for name, value in state.reported.items() if name in seen}
    waiting = state.waiting | {name: value for name, value in seen.items() if reported.get(name) != value}
    done = _report(tick, landing, dict(islice(waiting.items(), MOST))) if waiting else {}
    return State(
        reported=reported | {name: value for name, value in done.items() if name in seen},
        waiting={name: value for name, value in waiting.items() if name not in done},
    )


def observe(instance: dg.DagsterInstance, spec: Product, source: Source, key: str, reason: str) -> None:
    """Report what happened to a file that nothing follows from by itself."""
    if source.is_landed:
        event = dg.AssetObservation(
            landing_key(spec, source), partition=_partition(key), description=f"{source.name} of {key}: {reason}."
        )
        instance.report_runless_asset_event(event)


def _report(tick: ticks.ProductTick, landing: Mapping[str, Source], new: Mapping[str, str]) -> dict[str, str]:
    """Report files that Dagster does not know; return those that it knows now."""
    done: dict[str, str] = {}
    for source in landing.values():
        marks = {name.partition(" ")[2]: value for name, value in new.items() if name.partition(" ")[0] == source.name}
        if not marks:
            continue
        asset, channel = landing_key(tick.spec, source), tick.product.channels[source.name]
        known = _known(tick.instance, asset, [*marks])
        for key, value in marks.items():
            if known.get(key) != value:
                if done and time.perf_counter() > tick.until_s:
                    return done
                tick.instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        asset,
                        partition=_partition(key),
                        tags={VERSION: value},
                        metadata={"dagster/uri": channel.cite(key)},
                    )
                )
            done[f"{source.name} {key}"] = value
    return done


def _known(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: list[str]) -> dict[str, str]:
    """Return the newest mark of each key that Dagster knows. One query."""
    partitions = [partition for key in keys if (partition := _partition(key)) is not None]
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=partitions or None)
    known: dict[str, str] = {}
    for record in instance.fetch_materializations(wanted, limit=10 * MOST if partitions else 1).records:
        if (event := record.asset_materialization) is not None:
            known.setdefault(record.partition_key or naming.UNPARTITIONED, (event.tags or {}).get(VERSION, ""))
    return known


def _partition(key: str) -> str | None:
    return None if key == naming.UNPARTITIONED else key
