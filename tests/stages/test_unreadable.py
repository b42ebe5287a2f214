"""A delivery that cannot be read is a fault of its key: it is held by record, and every other key goes on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.jobs import intervention
from platform_assets.operations.status import as_text, of_product
from platform_assets.product.spec import Column, Product
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches

pytestmark = pytest.mark.slow

BAD = "0004"
Run = Callable[..., dg.ExecuteInProcessResult]


def with_readings(**changes: Any) -> Product:
    sources = [replace(item, **changes) if item.name == "readings" else item for item in batches.SPEC.sources]
    return replace(batches.SPEC, sources=tuple(sources))


WAITS = with_readings(unreadable="wait")


@pytest.fixture
def go(settings: Settings, instance: dg.DagsterInstance) -> Run:
    clock.move(settings, batches.SPEC.name, datetime(2024, 1, 3, tzinfo=UTC))

    def execute(first: str, last: str, spec: Product = batches.SPEC) -> dg.ExecuteInProcessResult:
        defs = build_defs(specs=[spec], resources={"store": StoreResource(variables=settings.to_environment())})
        return defs.resolve_job_def(naming.job("advance", spec.name)).execute_in_process(
            instance=instance,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            raise_on_error=False,
        )

    return execute


def land_bad(settings: Settings, text: str | bytes, source: str = "readings") -> None:
    batches.land(settings.root, source, BAD, "").write_bytes(text if isinstance(text, bytes) else text.encode())


GOOD = batches.readings(BAD)
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "the file is empty"),
    "renamed": (GOOD.replace("reading", "measure", 1), "Likely renamed: reading is now called measure"),
    "not text": (b"\x80\x81\xfe\xff" * 40, "not UTF-8 text"),
}


@pytest.mark.costly
@pytest.mark.parametrize("name", BAD_FILES)
def test_one_bad_file_is_held_and_all_other_keys_are_taken_in(
    settings: Settings, tables: TableStore, go: Run, name: str
) -> None:
    content, reason = BAD_FILES[name]
    last = "0023" if name == "renamed" else "0006"
    batches.land_all(settings.root, "0001", last)
    land_bad(settings, content)
    assert go("0001", last).success
    keys = batches.GRAIN.span("0001", last)
    rows = {key: record.rows for key, record in tables.records("raw_readings").items()}
    assert rows == {key: 0 if key == BAD else batches.SENSORS for key in keys}
    for stage in ("features", "drift", "decision"):
        assert set(tables.records(stage)) == set(keys), stage
    holds = ProductStore(batches.SPEC, settings).history.holds()
    assert [key for key, hold in holds.items() if hold.is_excluded] == [BAD]
    record = holds[BAD].record
    assert getattr(record, "check", None) == "unreadable_delivery"
    assert reason in record.why


@pytest.mark.costly
def test_a_gap_is_on_record_and_a_look_back_goes_on_without_it(settings: Settings, tables: TableStore, go: Run) -> None:
    batches.land_all(settings.root, "0001", "0008")
    land_bad(settings, "")
    assert go("0001", "0008").success
    features = tables.records("features")
    gaps = {key: record.notes.get("gaps") for key, record in features.items()}
    assert gaps == {key: {"readings": [BAD]} if key in ("0004", "0005", "0006") else None for key in features}
    assert tables.read("features", ["0005"])["recent_mean"][0] == 40.0, "of 0003 and 0005"


@pytest.mark.costly
def test_a_look_back_can_wait_until_the_file_is_delivered_again(settings: Settings, tables: TableStore, go: Run):
    batches.land_all(settings.root, "0001", "0008")
    land_bad(settings, "")
    product = ProductStore(WAITS, settings)
    assert go("0001", "0005", WAITS).success
    assert {key: record.rows for key, record in tables.records("features").items()} == {
        "0001": 6, "0002": 6, "0003": 6, "0004": 0, "0005": 0,
    }  # fmt: skip
    assert tables.records("features")["0005"].notes["awaits"] == {"readings": [BAD]}
    holds = product.history.holds()
    assert {key: getattr(hold.record, "check", "") for key, hold in holds.items()} == {
        BAD: "unreadable_delivery",
        "0005": "awaited_delivery",
    }
    assert "look back on readings of 0004, which cannot be read" in holds["0005"].record.why
    state = of_product(product)
    assert [item.key for item in state.held] == [BAD, "0005"]
    assert [item.key for item in state.todo if item.about == "held"] == [BAD]
    batches.land(settings.root, "readings", BAD, GOOD)
    assert go(BAD, "0008", WAITS).success
    assert all(record.rows == batches.SENSORS for record in tables.records("features").values())
    assert {key: hold.kind for key, hold in product.history.holds().items()} == {BAD: "repaired", "0005": "repaired"}
    assert tables.read("features", ["0005"])["recent_mean"][0] == 40.0, "of 0003, 0004 and 0005"


@pytest.mark.costly
@pytest.mark.parametrize("outcome", ["accept", "drop"])
def test_a_settled_key_ends_the_wait(settings: Settings, tables: TableStore, go: Run, outcome: Any) -> None:
    batches.land_all(settings.root, "0001", "0006")
    land_bad(settings, "")
    product = ProductStore(WAITS, settings)
    assert go("0001", "0005", WAITS).success
    with pytest.raises(dg.Failure, match="cannot be accepted: no features: they look back on readings of 0004"):
        intervention.settle(product, "0005", "accept", why="fine", by="ada")
    intervention.settle(product, BAD, outcome, why="the upstream lost it", by="ada")
    [(_, request)] = product.history.newest_requests(5)
    assert getattr(request, "first", None) == BAD
    assert go(BAD, "0006", WAITS).success
    assert {key: record.rows for key, record in tables.records("features").items()} == {
        key: 0 if key == BAD else 6 for key in batches.GRAIN.span("0001", "0006")
    }
    assert product.history.holds()["0005"].kind == "repaired"


@pytest.mark.costly
def test_nobody_reacting_ends_the_wait(settings: Settings, tables: TableStore, go: Run) -> None:
    batches.land_all(settings.root, "0001", "0012")
    land_bad(settings, "")
    assert go("0001", "0005", WAITS).success
    assert go("0005", "0012", WAITS).success
    product = ProductStore(WAITS, settings)
    holds = product.history.holds()
    assert {key: hold.kind for key, hold in holds.items()} == {BAD: "drop", "0005": "fault", "0006": "fault"}
    [(_, request)] = product.history.newest_requests(5)
    assert (getattr(request, "first", ""), request.why.partition(" since")[0]) == (BAD, f"{BAD} is dropped")
    assert go(BAD, "0012", WAITS).success
    assert tables.records("features")["0005"].rows == 6
    assert {key: hold.kind for key, hold in product.history.holds().items()} == {
        BAD: "drop",
        "0005": "repaired",
        "0006": "repaired",
    }


@pytest.mark.costly
def test_a_bad_label_file_holds_its_key_alone(settings: Settings, tables: TableStore, go: Run) -> None:
    batches.land_all(settings.root, "0001", "0008")
    land_bad(settings, batches.verdicts(BAD).replace("is_broken", "broken", 1), "verdicts")
    assert go("0001", "0008").success
    product = ProductStore(batches.SPEC, settings)
    assert "is_broken is now called broken" in product.history.holds()[BAD].record.why
    assert tables.records("outcomes")["0005"].rows == batches.SENSORS
    assert tables.records("features")[BAD].rows == batches.SENSORS
    batches.land(settings.root, "verdicts", BAD, batches.verdicts(BAD))
    assert go(BAD, "0008").success
    assert tables.records("outcomes")[BAD].rows == batches.SENSORS


@pytest.mark.costly
def test_a_repaired_file_without_rows_is_judged_again(settings: Settings, go: Run) -> None:
    batches.land_all(settings.root, "0001", "0005")
    land_bad(settings, "")
    assert go("0001", "0005").success
    land_bad(settings, GOOD.splitlines()[0] + "\n")
    assert go(BAD, "0005").success
    assert "empty_delivery" in ProductStore(batches.SPEC, settings).history.holds()[BAD].record.why


@pytest.mark.costly
def test_an_undeclared_column_is_left_out_with_one_warning(
    settings: Settings, tables: TableStore, go: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    batches.land_all(settings.root, "0001", "0006")
    assert go("0001", "0003").success
    sound = tables.read("raw_readings", ["0003"]).drop("arrived_at_utc")
    for key in ("0003", "0004", "0005"):
        lines = batches.readings(key).splitlines()
        wide = [f"{lines[0]},gust", *(f"{line},9" for line in lines[1:])]
        batches.land(settings.root, "readings", key, "\n".join([*wide, ""]))
    assert go("0003", "0006").success
    records = tables.records("raw_readings")
    assert tables.read("raw_readings", ["0003"]).drop("arrived_at_utc").equals(sound), "as without the column"
    noted = {key: record.notes.get("undeclared") for key, record in records.items()}
    assert noted == {key: ["gust"] if "0003" <= key <= "0005" else None for key in records}
    assert capfd.readouterr().err.count("has columns that its schema does not declare: gust") == 1
    product = ProductStore(batches.SPEC, settings)
    assert product.history.holds() == {}
    assert [(item.source, item.columns, item.newest) for item in of_product(product).undeclared] == [
        ("readings", ("gust",), "0005")
    ]
    assert "left out   readings of 0005, not declared: gust" in as_text(of_product(product))


@pytest.mark.costly
def test_a_column_may_be_missing_only_where_the_product_says_so(settings: Settings, tables: TableStore, go: Run):
    batches.land_all(settings.root, "0001", "0006")
    for key in ("0001", "0002", "0005"):
        frame = pl.read_csv(batches.readings(key).encode(), infer_schema=False).drop("colour")
        batches.land(settings.root, "readings", key, frame.write_csv())
    spec = with_readings(partial_columns=(Column(name="colour", since="0003"),))
    assert go("0001", "0006", spec).success
    assert tables.read("features", ["0002"])["colour"].null_count() == batches.SENSORS
    assert list(ProductStore(spec, settings).history.holds()) == ["0005"]
    optional = with_readings(partial_columns=(Column(name="colour", optional=True),))
    assert go("0001", "0006", optional).success
    assert ProductStore(optional, settings).history.holds()["0005"].kind == "repaired"


@pytest.mark.costly
def test_the_run_of_one_bad_key_ends_with_a_failed_check(settings: Settings, go: Run) -> None:
    batches.land_all(settings.root, "0001", "0005")
    go("0001", "0003")
    land_bad(settings, "")
    result = go(BAD, BAD)
    assert result.success
    checks = {item.check_name: item for item in result.get_asset_check_evaluations() if not item.passed}
    assert set(checks) >= {"is_readable", "no_faults", "all_keys"}
    assert str(checks["is_readable"].description).startswith("readings of 0004 cannot be read: the file is empty")
    [event] = result.asset_materializations_for_node("numbered_batches__raw_readings")
    assert "cannot be taken in" in str([entry.value for entry in event.metadata.values()])
    assert "the file is empty" in str(event.metadata["unreadable"].value)


@pytest.mark.costly
@pytest.mark.parametrize("text", ["", "sensor,mass\ns0,1\n"])
def test_a_slow_table_that_cannot_be_read_leaves_the_one_before_and_stops_no_key(
    settings: Settings, go: Run, text: str
) -> None:
    batches.land_all(settings.root, "0001", "0003")
    assert go("0001", "0002").success
    Path(batches.land(settings.root, "catalogue", naming.UNPARTITIONED, "")).write_text(text)
    result = go("0003", "0003")
    assert result.success
    tables = TableStore(settings.root, batches.SPEC.name)
    assert tables.read("features", ["0003"])["weight"].to_list() == [100, 101, 102, 103, 104, None]
    [check] = [item for item in result.get_asset_check_evaluations() if not item.passed]
    assert check.check_name == "is_readable" and "cannot be taken in" in str(check.description)
    batches.land(settings.root, "catalogue", naming.UNPARTITIONED, batches.catalogue().replace("s0,100", "s0,7"))
    assert go("0003", "0003").success
    assert tables.read("validated_catalogue", [naming.UNPARTITIONED])["weight"][0] == 7


def test_a_first_slow_table_that_cannot_be_read_is_named(settings: Settings, go: Run) -> None:
    batches.land_all(settings.root, "0001", "0002")
    Path(batches.land(settings.root, "catalogue", naming.UNPARTITIONED, "")).write_bytes(b"")
    assert not go("0001", "0002").success
