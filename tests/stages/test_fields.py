"""Every asset shows the same fields, and metadata renders as Dagster draws it."""

from dataclasses import replace

import dagster as dg
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.engine.metadata import column_schema, table
from platform_assets.engine.stage import Run, Stage
from tests.doubles.numbered_batches import SPEC

pytestmark = pytest.mark.slow

STAGE: Stage[None] = Stage(
    spec=SPEC,
    name="raw",
    source=SPEC.source("readings"),
    system=naming.DATA,
    kinds=("polars",),
    doc="Copy.\n\nAll of it.",
    modules=["platform_assets.base.naming"],
    run=Run,
)


def test_an_asset_of_a_source_is_named_grouped_and_described() -> None:
    (table,) = STAGE.tables
    spec = dg.AssetSpec(**STAGE.asset_fields(table))
    assert spec.key == dg.AssetKey(["numbered_batches", "raw_readings"])
    assert (spec.group_name, list(spec.owners)) == ("numbered_data", ["team:driftline"])
    assert spec.tags["driftline/stage"] == "raw"
    assert spec.tags["driftline/product"] == "numbered_batches"
    assert STAGE.code.startswith(str(spec.code_version))
    assert len(str(spec.code_version)) == 12
    assert spec.description == (
        "Copy. [Its page](/assets/numbered_batches/raw_readings)\n\nAll of it.\n\nReadings, a file a batch."
    )


def test_more_than_three_kinds_are_refused() -> None:
    stage = replace(STAGE, kinds=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match=r"stage 'raw' has kinds \['a', 'b', 'c', 'd'\]"):
        stage.asset_fields(stage.tables[0])


def test_a_table_shows_numbers_short_and_keeps_its_columns() -> None:
    rendered = table([{"name": "a|b", "auc": 0.76543}, {"name": "c", "auc": None}])
    assert rendered.md_str == "| name | auc |\n|---|---|\n| a\\|b | 0.7654 |\n| c |  |"
    assert table([]).md_str == "*(no rows)*"


def test_a_schema_shows_types_and_meanings() -> None:
    schema = column_schema(pl.Schema({"a": pl.Int64()}), {"a": "what it is"})["dagster/column_schema"]
    assert schema.columns == [dg.TableColumn(name="a", type="Int64", description="what it is")]
