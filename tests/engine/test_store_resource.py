"""The store resource makes what the settings name, when it is asked."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from platform_assets.automation.resources import defaults
from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store.records.requests import INTERVENTIONS, Intervention


def test_everything_lies_below_the_root_of_the_variables(tmp_path: Path) -> None:
    store = StoreResource(variables={"DRIFTLINE_ROOT": str(tmp_path / "there"), "DRIFTLINE_STATE": str(tmp_path)})
    store.ledgers("tiny").of(INTERVENTIONS).append(Intervention(key="0001", kind="drop"))
    assert store.history("tiny").root == str(tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"ledgers"}


def test_without_variables_the_store_reads_the_environment_when_asked(settings: Settings) -> None:
    assert StoreResource().settings.root == settings.root


def test_now_is_the_products_clock(settings: Settings) -> None:
    moment = datetime(2013, 3, 1, tzinfo=UTC)
    clock.move(settings, "tiny", moment)
    assert StoreResource().now("tiny", is_live=False) == moment


def test_the_defaults_need_no_environment_until_an_asset_asks() -> None:
    assert isinstance(defaults().launcher, dg.ResourceDefinition)
    assert defaults() is defaults(), "Dagster refuses two objects under one key"
