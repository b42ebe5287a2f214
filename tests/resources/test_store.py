"""The store resource makes what the settings name, when it is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from platform_assets import clock, naming
from platform_assets.records.asked import INTERVENTIONS, Intervention
from platform_assets.settings import Settings
from resources import defaults
from resources.store import StoreResource


def test_everything_lies_below_the_root_of_the_variables(tmp_path: Path) -> None:
    store = StoreResource(variables={"DRIFTLINE_ROOT": str(tmp_path / "there"), "DRIFTLINE_STATE": str(tmp_path)})
    store.artifacts.put(b"blob")
    store.ledgers("tiny").of(INTERVENTIONS).append(Intervention(key="0001", kind="drop"))
    assert store.tables("tiny").root == str(tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"artifacts", "ledgers"}


def test_without_variables_it_reads_the_environment_when_asked(settings: Settings) -> None:
    assert StoreResource().settings.root == settings.root


def test_a_landed_file_comes_with_its_place_and_its_arrival(settings: Settings) -> None:
    place = Path(naming.landing_place(settings.root, "tiny/facts", "0001", ".csv"))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"a\n")
    found = StoreResource().landed("tiny/facts", "0001", ".csv")
    assert (found.uri, found.data) == (str(place), b"a\n")
    assert abs(found.arrived_at_utc.timestamp() - place.stat().st_mtime) < 1


def test_a_file_that_has_not_landed_is_named(settings: Settings) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*/landing/tiny/facts/0001.csv: it has not landed"):
        StoreResource().landed("tiny/facts", "0001", ".csv")


def test_now_is_the_products_clock(settings: Settings) -> None:
    moment = datetime(2013, 3, 1, tzinfo=UTC)
    clock.move(settings, "tiny", moment)
    assert StoreResource().now("tiny", is_live=False) == moment


def test_the_defaults_need_no_environment_until_an_asset_asks() -> None:
    assert set(defaults()) == {"store", "launcher", "alerts", "io_manager"}
    assert isinstance(defaults()["launcher"], dg.ResourceDefinition)
