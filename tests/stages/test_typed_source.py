"""A source of typed files keeps every key: only rows with values outside their types are quarantined."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import raw, validated
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles.built import built

pytestmark = pytest.mark.slow

READINGS = replace(batches.SPEC.source("readings"), suffix=".parquet", read=pl.read_parquet)
SPEC = replace(batches.SPEC, sources=(READINGS, *batches.SPEC.sources[1:]))
SENSORS = list(range(batches.SENSORS))


def land(settings: Settings, key: str, **columns: Any) -> None:
    sound = {
        "sensor": [f"s{sensor}" for sensor in SENSORS],
        "reading": [float(10 * int(key) + sensor) for sensor in SENSORS],
        "colour": pl.Series([None] * len(SENSORS), dtype=pl.String),
        "known_at_utc": [batches.moment(key)] * len(SENSORS),
    }
    path = Path(naming.landing_location(settings.root, f"{SPEC.name}/readings", key, ".parquet"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({**sound, **columns}).write_parquet(path)


@pytest.fixture
def run(settings: Settings, instance: dg.DagsterInstance) -> Callable[[str, str], None]:
    assets = [*built(SPEC, raw)[:1], *built(SPEC, validated)[:1]]

    def execute(first: str, last: str) -> None:
        dg.materialize(
            assets,
            instance=instance,
            resources={"driftline_store": StoreResource(variables=settings.to_environment())},
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )

    return execute


def good_and_reasons(tables: TableStore, key: str) -> tuple[list[int], list[str]]:
    good, refused = (tables.read(f"{stage}_readings", [key]) for stage in ("validated", "quarantine"))
    assert sorted([*good["source_offset"], *refused["source_offset"]]) == SENSORS
    return good["source_offset"].to_list(), refused["reason"].to_list()


def test_types_that_a_table_cannot_store_are_ingested(
    settings: Settings, tables: TableStore, run: Callable[[str, str], None]
) -> None:
    land(settings, "0001", reading=pl.Series(SENSORS, dtype=pl.UInt16))
    land(
        settings,
        "0002",
        reading=pl.Series([timedelta(hours=1)] * 6),
        colour=pl.Series(["red"] * 6, dtype=pl.Enum(["red"])),
    )
    run("0001", "0002")
    assert good_and_reasons(tables, "0001") == (SENSORS, [])
    good, reasons = good_and_reasons(tables, "0002")
    assert good == [] and reasons[0].startswith("reading is PT1H (Duration(time_unit='us')), expected a number")


def test_a_table_keeps_its_types_when_the_schema_differs(
    settings: Settings, tables: TableStore, run: Callable[[str, str], None]
) -> None:
    narrow = pl.Series([10.5] * 6, dtype=pl.Float32)
    land(settings, "0001", reading=narrow)
    body = pl.read_parquet(next(Path(settings.root).rglob("0001.parquet")))
    placed = body.with_columns(source_offset=pl.int_range(pl.len()), arrived_at_utc=pl.col("known_at_utc"))
    tables.replace("raw_readings", {"0001": placed}, inputs={"0001": {}}, code="of an older version")
    land(settings, "0002", reading=narrow)
    run("0002", "0002")
    assert tables.types("raw_readings")["reading"] == pl.Float32
    assert tables.read("validated_readings", ["0002"])["reading"].to_list() == [10.5] * 6
