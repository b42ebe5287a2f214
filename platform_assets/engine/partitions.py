"""Convert keys to Dagster's partitions definitions and mappings. Only this module uses either, and their beta features.

A mapping determines what Dagster shows and backfills. It silently cuts a window short at the start of history, so
stages check their keys themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.base import clock
from platform_assets.base.keys import BatchGrain, DailyGrain, Grain, HourlyGrain
from platform_assets.base.settings import state_folder

if TYPE_CHECKING:
    from platform_assets.product.spec import Product

HOUR_FORMAT = "%Y-%m-%dT%H"
EVERY_KEY = 100_000
"""An offset that reaches before the first key of any grain."""

MOST_PAIRS = 50_000
"""With more pairs, a mapping between batches would be larger than the graph it belongs to."""


def keys_of(spec: Product) -> Grain:
    """Return the keys that Dagster offers of a product: those of a recording end with its announced replay.

    Without an announcement all keys of the recording are offered. The end is where the replay is going to stop, not
    where its clock stands: webserver and daemon hold a copy of the definitions for up to a minute, and Dagster fails a
    run that asks for a key after the copy's end.
    """
    return _until(spec, 0)


def cutoffs_of(spec: Product) -> Grain:
    """Return the cutoffs that Dagster offers: the keys, and the one after the last key of a replay."""
    return _until(spec, 1)


def _until(spec: Product, more: int) -> Grain:
    grain = spec.grain
    last = None if spec.is_live else clock.announced(state_folder(), spec.name)
    if last is None or grain.size is None or not grain.contains(last):
        return grain
    end = grain.key_at(min(grain.index(last) + more, grain.size - 1))
    if isinstance(grain, DailyGrain | HourlyGrain):
        return replace(grain, end=end)
    return replace(grain, count=grain.index(end) + 1) if isinstance(grain, BatchGrain) else grain


@lru_cache(maxsize=64)
def definition(grain: Grain) -> dg.PartitionsDefinition[str]:
    """Return Dagster's partitions definition with exactly the grain's keys.

    A grain without an end also gets the current period, so that it can be chosen as a cutoff.
    """
    if isinstance(grain, BatchGrain):
        # Dynamic partitions take no mapping with a window, and a range of them follows the order of their insertion.
        return dg.StaticPartitionsDefinition(list(grain.span(grain.first, grain.key_at(grain.count - 1))))
    if isinstance(grain, DailyGrain | HourlyGrain):
        # Dagster's end is exclusive: the period after the last one.
        end = None if grain.end is None else type(grain)(start=grain.start).key_at(grain.index(grain.end) + 1)
        dates: Any = {"start_date": grain.start, "end_date": end, "end_offset": 0 if grain.end else 1}
        if isinstance(grain, DailyGrain):
            return dg.DailyPartitionsDefinition(timezone=grain.time_zone, **dates)
        # Dagster's own format is 2013-03-01-05:00, and keys name files.
        return dg.HourlyPartitionsDefinition(timezone="UTC", fmt=HOUR_FORMAT, **dates)
    raise TypeError(f"grain is a {type(grain).__name__}; expected one of the three in platform_assets/base/keys.py.")


def mapping(grain: Grain, *, lookback: int) -> dg.PartitionMapping:
    """Return the mapping of key K to the keys `K-lookback` ... `K`: features on validated rows."""
    return _offsets(grain, -lookback, 0)


def window_mapping(grain: Grain, *, width: int | None, label_delay: int = 0) -> dg.PartitionMapping:
    """Return the mapping of a cutoff to the keys before it: `[-width, -1-label_delay]`.

    Args:
        grain: of cutoffs and keys alike.
        width: how many keys back the window starts; None for every key since the first.
        label_delay: number of keys until labels arrive.
    """
    return _offsets(grain, -EVERY_KEY if width is None else -width, -1 - label_delay)


def single_run() -> dg.BackfillPolicy:
    """Return the backfill policy that runs a range of keys as one run; every asset of a range needs it."""
    with beta_allowed():
        return dg.BackfillPolicy.single_run()


def one_run_each() -> dg.BackfillPolicy:
    """Return the backfill policy that gives every key its own run, for cutoffs."""
    with beta_allowed():
        return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)


@lru_cache(maxsize=64)
def _offsets(grain: Grain, first: int, last: int) -> dg.PartitionMapping:
    if not isinstance(grain, BatchGrain):
        with beta_allowed():
            # Offsets count periods of the downstream asset.
            return dg.TimeWindowPartitionMapping(
                start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True
            )
    if first == last == 0:
        return dg.IdentityPartitionMapping()
    keys = grain.span(grain.first, grain.key_at(grain.count - 1))
    if len(keys) * min(len(keys), last - first + 1) > MOST_PAIRS:
        return dg.AllPartitionMapping()
    later = {key: set(keys[max(0, index - last) : max(0, index - first + 1)]) for index, key in enumerate(keys)}
    # The last cutoff is not a key: a mapping that names it as one would be refused.
    return dg.StaticPartitionMapping({key: cutoffs for key, cutoffs in later.items() if cutoffs})


@contextmanager
def beta_allowed() -> Iterator[None]:
    """Silence Dagster's warnings about beta and preview parameters; the versions that are tested are pinned.

    Needed for backfill policies, for mappings that reach before the first key, and for checks with partitions.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield
