"""Feature rows that no request could have are put aside and counted; a key that loses too many is held."""

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import declared, features, raw, validated
from platform_assets.monitoring.drift_maker import Judging
from platform_assets.monitoring.fault_records import FaultRecords
from platform_assets.operations import status
from platform_assets.operations.report import pages
from platform_assets.product.spec import Monitors, Product
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import FAULTS
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles.built import running
from tests.stages.conftest import NOW

pytestmark = pytest.mark.slow

SENSORS = [f"s{sensor}" for sensor in range(batches.SENSORS)]


def declaring(name: str, **changes: Any) -> Product:
    fields = tuple(replace(item, **changes) if item.name == name else item for item in batches.SPEC.fields)
    return replace(batches.SPEC, fields=fields)


def build(spec: Product, settings: Settings, instance: dg.DagsterInstance) -> TableStore:
    batches.land_all(settings.root, "0001", "0002")
    running(settings, instance, spec, raw, validated, features)("0001", "0002")
    return TableStore(settings.root, spec.name)


@pytest.mark.costly
def test_rows_out_of_range_and_null_are_put_aside_and_counted_by_reason(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    spec = declaring("reading", high=24.0)
    spec = replace(spec, fields=(*spec.fields[:-1], replace(spec.fields[-1], is_nullable=False)))
    tables = build(spec, settings, instance)
    records = tables.records("features")
    assert declared.PUT_ASIDE in records["0001"].notes
    assert tables.read("features", ["0001"])["entity"].to_list() == SENSORS[:-1]
    assert tables.read("features", ["0002"])["entity"].to_list() == SENSORS[:5]
    assert records["0001"].notes[declared.BY_REASON] == {"weight is null and not nullable": 1}
    assert records["0002"].notes[declared.BY_REASON] == {"reading is outside its declared range, None to 24.0": 1}
    assert [record.notes[declared.PUT_ASIDE] for record in records.values()] == [1, 1]


@pytest.mark.costly
def test_range_limits_and_nulls_of_a_nullable_field_are_stored_without_a_note(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    tables = build(declaring("reading", low=10.0, high=25.0), settings, instance)
    rows = tables.read("features", ["0001", "0002"])
    assert rows["entity"].to_list() == 2 * SENSORS
    assert (rows["reading"].min(), rows["reading"].max(), rows["weight"].null_count()) == (10.0, 25.0, 2)
    assert all(declared.PUT_ASIDE not in record.notes for record in tables.records("features").values())


@pytest.mark.costly
def test_a_key_that_loses_too_many_rows_is_held_by_name_and_the_loop_continues(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    spec = replace(declaring("weight", is_nullable=False), monitors=Monitors(max_quarantined_share=0.1))
    clock.move(settings, spec.name, NOW)
    batches.land_all(settings.root, "0001", "0002")
    job = build_defs(specs=[spec]).resolve_job_def(naming.job("advance", spec.name))
    tags = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0002"}
    assert job.execute_in_process(instance=instance, tags=tags).success
    ledgers = Ledgers(settings.root, spec.name)
    _, fault = ledgers.latest(f"{naming.FAULTS}/0002")
    assert (fault["kind"], fault["source"], fault["check"]) == ("fault", "the features", "undeclared_values")
    assert fault["came"] == "1 of 6 rows set aside (16.7%), 1 of them because weight is null and not nullable"
    assert ledgers.read(naming.DECISIONS, "0002")["action"] == "alert_fault"
    text = status.as_text(status.of_product(ProductStore(spec, settings)))
    assert "0002 held (the features: undeclared_values)" in text
    assert "put aside  2 of 12 rows of features of 2 batches, most recently 0002: weight is null" in text
    assert "weight is null and not nullable" in pages.html(settings, spec)
    records = FaultRecords(Judging.for_product(spec), ProductStore(spec, settings), ("0001", "0002"))
    assert records._choice("0002", FAULTS.read(fault, "").checks) == (None, "no source is known to be the cause")


@pytest.mark.costly
def test_a_broken_source_is_the_primary_fault_and_not_the_missing_features(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    spec = declaring("weight", is_nullable=False)
    clock.move(settings, spec.name, NOW)
    batches.land_all(settings.root, "0001", "0001")
    batches.land(settings.root, "readings", "0001", batches.readings("0001").replace(",10.0,", ",-10.0,"))
    job = build_defs(specs=[spec]).resolve_job_def(naming.job("advance", spec.name))
    tags = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0001"}
    assert job.execute_in_process(instance=instance, tags=tags).success
    _, fault = Ledgers(settings.root, spec.name).latest(f"{naming.FAULTS}/0001")
    assert [item["check"] for item in fault["checks"]] == ["quarantined_share"]
    assert TableStore(settings.root, spec.name).read("features", ["0001"]).height == batches.SENSORS - 2
