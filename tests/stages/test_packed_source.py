"""A source of CSV packed with gzip is taken in like one of plain files, and several lines only where declared."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.automation.factory import OUTSIDE
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import raw, validated
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches


@pytest.mark.parametrize("multiline", [(), ("colour",)])
def test_packed_csv_is_taken_in(
    settings: Settings, tables: TableStore, instance: dg.DagsterInstance, multiline: tuple[str, ...]
) -> None:
    source = replace(batches.SPEC.source("readings"), suffix=".csv.gz", multiline=multiline)
    spec = replace(batches.SPEC, sources=(source, *batches.SPEC.sources[1:]))
    path = Path(naming.landing_location(settings.root, f"{spec.name}/readings", "0001", ".csv.gz"))
    path.parent.mkdir(parents=True)
    text = batches.readings("0001").replace("green", '"dark\ngreen"').replace("\n", "\r\n")
    path.write_bytes(gzip.compress(text.encode()))
    dg.materialize(
        [*raw.build(spec, OUTSIDE)[:1], *validated.build(spec, OUTSIDE)[:1]],
        instance=instance,
        resources={"driftline_store": StoreResource(variables=settings.to_environment())},
        partition_key="0001",
    )
    good, refused = (tables.read(f"{stage}_readings", ["0001"]) for stage in ("validated", "quarantine"))
    several = text.count("dark")
    assert good.height + refused.height == batches.SENSORS
    assert refused.height == (0 if multiline else several) and several > 0
    assert good["colour"].eq("dark\r\ngreen").sum() == (several if multiline else 0)
    assert all("has a line break in colour" in reason for reason in refused["reason"])
