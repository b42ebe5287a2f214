"""A run over a range plans at most 750 events, counted as Dagster counts them."""

from dataclasses import replace

import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.keys import HourlyGrain
from platform_assets.engine import product_files
from platform_assets.product import planned
from platform_assets.product.spec import Product
from tests.doubles import numbered_batches, recorded
from tests.doubles.products import hourly_temperature

pytestmark = pytest.mark.slow

SPECS = [*product_files.load_all(), recorded.SPEC, numbered_batches.SPEC, hourly_temperature.SPEC]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_counts_are_those_of_the_job_that_advances_keys(spec: Product) -> None:
    built = build_defs(specs=[spec])
    graph, job = built.resolve_asset_graph(), built.resolve_job_def(naming.job("advance", spec.name))
    is_keyed = [graph.get(key).partitions_def is not None for key in job.asset_layer.executable_asset_keys]
    assert (planned.per_key(spec), planned.per_run(spec)) == (is_keyed.count(True), is_keyed.count(False))


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
