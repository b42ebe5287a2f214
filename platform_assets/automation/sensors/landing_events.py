"""Report to Dagster what lands: each complete file once as a materialisation, other changes as observations.

The cursor has what was reported, and Dagster is asked about the rest, in one query per source with something new. One
tick reports at most `MOST` files; the others wait for the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import dagster as dg
from msgspec import field

from platform_assets.automation.sensors import landed_files, ticks
from platform_assets.data import landing_reports
from platform_assets.data.landing_reports import MOST
from platform_assets.product.spec import Product, Source


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
            landing_reports.landing_key(spec, source),
            partition=landing_reports.partition(key),
            description=f"{source.name} of {key}: {reason}.",
        )
        instance.report_runless_asset_event(event)


def _report(tick: ticks.ProductTick, landing: Mapping[str, Source], new: Mapping[str, str]) -> dict[str, str]:
    """Report files that Dagster does not know; return those that it knows now."""
    done: dict[str, str] = {}
    for source in landing.values():
        marks = {name.partition(" ")[2]: value for name, value in new.items() if name.partition(" ")[0] == source.name}
        channel = tick.product.channels[source.name]
        known = landing_reports.report(tick.instance, tick.spec, source, channel, marks, tick.until_s)
        done |= {f"{source.name} {key}": marks[key] for key in known}
    return done
