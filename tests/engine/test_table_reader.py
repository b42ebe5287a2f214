"""Rows can be loaded through Dagster's I/O manager, and not written."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store.problems import MissingPartitions
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches

ROWS = pl.DataFrame({"entity": ["a", "b"], "number": [1, 2]})
NAME = batches.SPEC.name


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=str(tmp_path / "store"), state=tmp_path)


@pytest.fixture
def defs(settings: Settings) -> dg.Definitions:
    """The product's definitions on a store with two keys of features and a checkpoint."""
    tables = TableStore(settings.root, NAME)
    frames = {key: ROWS.with_columns(number=pl.col("number") + int(key)) for key in ("0001", "0002")}
    tables.replace("features", frames, inputs={key: {} for key in frames}, code="code")
    tables.record("checkpoint", "0001", content_digest="c" * 64, inputs={}, code="code")
    return build_defs(specs=[batches.SPEC], resources={"store": StoreResource(variables=settings.to_environment())})


def test_a_partition_is_loaded_by_its_asset_key(defs: dg.Definitions) -> None:
    result = defs.load_asset_value(naming.asset_key(NAME, "features"), partition_key="0002")
    assert result.to_dict(as_series=False) == {"key": ["0002"] * 2, "entity": ["a", "b"], "number": [3, 4]}


def test_a_key_that_was_not_materialised_is_named(defs: dg.Definitions) -> None:
    with pytest.raises(MissingPartitions, match="features has no key 0003; materialise features for it first"):
        defs.load_asset_value(naming.asset_key(NAME, "features"), partition_key="0003")


def test_an_asset_without_rows_says_what_it_holds(defs: dg.Definitions) -> None:
    with pytest.raises(ValueError, match=f"checkpoint has no rows to load; its artifact of 0001 is {'c' * 64}"):
        defs.load_asset_value(naming.asset_key(NAME, "checkpoint"), partition_key="0001")


def test_nothing_is_written_through_the_reader(settings: Settings) -> None:
    @dg.asset(key=["tiny", "mine"])
    def mine() -> int:
        return 1

    reader = build_defs(specs=[]).resources["io_manager"]
    with pytest.raises(TypeError, match="tiny/mine returned a value of type int to be stored; assets here write their"):
        dg.materialize([mine], resources={"io_manager": reader, "store": StoreResource()})


def test_resources_that_depend_on_the_store_use_a_replaced_one(settings: Settings) -> None:
    variables = settings.to_environment()
    result = build_defs(specs=[], resources={"store": StoreResource(variables=variables)}).resources
    with dg.build_resources(result) as built:
        assert built.alerts.settings.root == built.launcher.settings.root == settings.root


def test_resources_that_depend_on_the_store_use_the_one_replaced_for_a_run(settings: Settings) -> None:
    roots = []

    @dg.op(required_resource_keys={"alerts", "launcher"})
    def look(context) -> None:
        roots.extend(item.settings.root for item in (context.resources.alerts, context.resources.launcher))

    @dg.job(executor_def=dg.in_process_executor)
    def looks() -> None:
        look()

    job = dg.Definitions(jobs=[looks], resources=build_defs(specs=[]).resources).resolve_job_def("looks")
    job.execute_in_process(resources={"store": StoreResource(variables=settings.to_environment())})
    assert roots == [settings.root] * 2
