"""Names that Dagster, Delta and a file system all accept."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base import naming


def test_asset_keys_name_product_and_stage() -> None:
    assert naming.asset_key("tiny", "features") == ["tiny", "features"]
    assert naming.asset_key("tiny", "raw", "weather") == ["tiny", "raw_weather"]
    assert naming.job("retrain", "tiny") == "retrain__tiny"


def test_groups_are_the_three_systems_and_monitoring() -> None:
    groups = [naming.group("tiny", system) for system in naming.SYSTEMS]
    assert groups == ["tiny_data", "tiny_training", "tiny_serving", "tiny_monitor"]
    with pytest.raises(ValueError, match="system is 'moon'"):
        naming.group("tiny", "moon")


def test_locations_join_alike_for_folders_and_urls() -> None:
    assert naming.table_location("/data/", "tiny", "features") == "/data/tables/tiny/features"
    assert naming.records_location("s3://b/x", "tiny", "features") == "s3://b/x/records/tiny/features"
    assert naming.landing_location("s3://b", "tiny/weather", "0001", ".csv") == "s3://b/landing/tiny/weather/0001.csv"
    assert naming.ledger_path("tiny", naming.RELEASES) == "ledgers/tiny/releases"
    assert naming.blob_path("abcd") == "artifacts/sha256/ab/abcd"


@pytest.mark.parametrize(
    "name", ["", "Tiny", "1st", "two__parts", "with-dash", "with.dot", "a" * 64, "ü", "a b", "_a", "a\n"]
)
def test_unusable_names_are_refused_with_their_place(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Product.name is {name!r}")):
        naming.check_name(name, "Product.name")


@given(st.from_regex(r"[a-z][a-z0-9]{0,9}(_[a-z0-9]{1,9}){0,3}", fullmatch=True))
def test_good_names_pass_and_never_collide_with_the_separator_of_jobs(name: str) -> None:
    assert naming.check_name(name, "name") == name
    assert naming.job("retrain", name).split("__") == ["retrain", name]
