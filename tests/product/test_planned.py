"""A run over a range plans at most 750 events, counted as Dagster counts them."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.keys import DailyGrain, HourlyGrain
from platform_assets.engine import product_files
from platform_assets.product import planned
from platform_assets.product.spec import Product
from tests.doubles import numbered_batches, recorded
from tests.doubles.products import hourly_temperature

PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
SPECS = [*product_files.load_all(), recorded.SPEC, numbered_batches.SPEC, hourly_temperature.SPEC]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_counts_are_those_of_the_job_that_advances_keys(spec: Product) -> None:
    built = build_defs(specs=[spec])
    graph, job = built.resolve_asset_graph(), built.resolve_job_def(naming.job("advance", spec.name))
    is_keyed = [graph.get(key).partitions_def is not None for key in job.asset_layer.executable_asset_keys]
    assert (planned.per_key(spec), planned.per_run(spec)) == (is_keyed.count(True), is_keyed.count(False))


def test_dagster_plans_as_many_events_for_a_whole_run() -> None:
    spec = replace(recorded.SPEC, grain=DailyGrain(start="2020-01-01", end="2020-12-31"))
    count = planned.keys_per_run(spec)
    assert (count, planned.keys_per_run(hourly_temperature.SPEC)) == (49, 62)
    job = build_defs(specs=[spec]).resolve_job_def(naming.job("advance", spec.name))
    first, last = spec.grain.key_at(100), spec.grain.key_at(100 + count - 1)
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job, tags=tags)
        events = instance.get_records_for_run(run.run_id, of_type=PLANNED).records
    assert len(events) == 49 * 15 + 3 <= planned.MOST_EVENTS < 50 * 15 + 3


def test_a_run_takes_at_least_one_key() -> None:
    sources = tuple(replace(recorded.SPEC.sources[1], name=f"readings{n}") for n in range(300))
    wide = replace(recorded.SPEC, sources=(*recorded.SPEC.sources, *sources))
    assert planned.per_key(wide) > planned.MOST_EVENTS
    assert planned.keys_per_run(wide) == 1


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            replace(hourly_temperature.SPEC, grain=HourlyGrain(start="2013-01-01T00", end="2014-12-31T00")),
            "a year of history is advanced in 142 runs of at most 62 keys; expect 70 min for Dagster's events of 8,760",
        ),
        (recorded.SPEC, "a year of history is advanced in 8 runs of at most 49 keys; expect 4 min"),
        (
            numbered_batches.SPEC,
            "all of the recording is advanced in 1 run of at most 62 keys; expect 1 min",
        ),
    ],
    ids=["hours", "days", "batches"],
)
def test_history_is_estimated_in_minutes(spec: Product, text: str) -> None:
    assert planned.history(spec).startswith(text)
