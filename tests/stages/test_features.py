"""The features stage stores no value that its fields do not declare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets import partitions
from platform_assets.settings import Settings
from platform_assets.specs.base import Field, ProductSpec
from platform_assets.stages import features, raw, validated
from platform_assets.storage.tables import TableStore
from resources.store import StoreResource
from tests.doubles import numbered_batches as batches
from tests.doubles import watched_batches as watched


def declared(spec: ProductSpec, name: str, **changes: Any) -> ProductSpec:
    """Return the product with one of its fields declared otherwise."""
    return replace(spec, fields=tuple(replace(each, **changes) if each.name == name else each for each in spec.fields))


def run(spec: ProductSpec, settings: Settings, first: str, last: str) -> dg.ExecuteInProcessResult:
    """Run raw, validated and features over a range of keys."""
    with partitions.beta_allowed():
        assets = [each for stage in (raw, validated, features) for each in stage.build(spec)]
    store = StoreResource(variables=settings.to_environment())
    defs = dg.Definitions(assets=assets, resources={"store": store}, executor=dg.in_process_executor)
    job = defs.resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def said(spec: ProductSpec, result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    data = result.failure_data_for_node(f"{spec.name}__features")
    assert data is not None
    assert data.error is not None
    return str(data.error.cause.message if data.error.cause else data.error.message)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("weight", {"is_nullable": False}, "field 'weight' is null in 4 of 24 rows and not nullable, first in 0001"),
        ("reading", {"high": 41.0}, "is 42.0 in one of 4 rows outside of its declared range, None to 41.0, first"),
        ("recent_mean", {"low": 11.0}, "is 10.0 in one of 1 rows outside of its declared range, 11.0 to None"),
        ("colour", {"dtype": "int"}, "field 'colour' is String; a field of dtype 'int' is an integer"),
    ],
)  # fmt: skip
def test_a_value_that_no_field_declares_fails_the_step_and_stores_nothing(
    settings: Settings, name: str, changes: dict[str, Any], sentence: str
) -> None:
    spec = declared(batches.SPEC, name, **changes)
    batches.land_all(settings.root, "0001", "0004")
    problem = said(spec, run(spec, settings, "0001", "0004"))
    assert sentence in problem
    assert "features of numbered_batches" in problem
    assert "platform_assets/specs/numbered_batches.py" in problem
    assert TableStore(settings.root, spec.name).records("features") == {}


def test_the_ends_of_a_range_and_nulls_of_a_nullable_field_are_stored(settings: Settings) -> None:
    spec = declared(batches.SPEC, "reading", low=10.0, high=45.0)
    batches.land_all(settings.root, "0001", "0004")
    assert run(spec, settings, "0001", "0004").success
    rows = TableStore(settings.root, spec.name).read("features", ["0001", "0004"])
    assert (rows["reading"].min(), rows["reading"].max(), rows["weight"].null_count()) == (10.0, 45.0, 2)


def test_a_source_without_a_row_may_leave_nulls_so_that_the_key_can_be_judged(settings: Settings) -> None:
    """The empty delivery is a fault that `drift` records; the features of the key must be there for that."""
    spec = declared(watched.SPEC, "temperature", is_nullable=False)
    watched.land_all(settings.root, "0001", "0004")
    watched.land(settings.root, "air", "0003", watched.frame("air", "0003").clear())
    assert run(spec, settings, "0001", "0004").success
    assert TableStore(settings.root, spec.name).read("features", ["0003"])["temperature"].null_count() == 30


def test_a_source_with_rows_that_say_nothing_leaves_no_nulls(settings: Settings) -> None:
    spec = declared(watched.SPEC, "temperature", is_nullable=False)
    watched.land_all(settings.root, "0001", "0004")
    mute = watched.frame("air", "0003").with_columns(pl.lit(None, dtype=pl.Float64).alias("temperature"))
    watched.land(settings.root, "air", "0003", mute)
    assert "is null in 30 of 120 rows and not nullable, first in 0003" in said(
        spec, run(spec, settings, "0001", "0004")
    )


def test_an_infinite_value_is_refused(settings: Settings) -> None:
    def infinite(tables: Any, window: Any) -> pl.DataFrame:
        return batches.features(tables, window).with_columns(reading=1 / (pl.col("reading") - 12))

    spec = replace(batches.SPEC, features=infinite)
    assert isinstance(spec.fields[0], Field)
    batches.land_all(settings.root, "0001", "0002")
    problem = said(spec, run(spec, settings, "0001", "0002"))
    assert "field 'reading' is no finite number in 1 rows, first in 0001" in problem
