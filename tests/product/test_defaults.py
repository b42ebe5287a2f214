"""A product of one table needs little more than its columns; everything else is derived, and works."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandera.polars as pa
import polars as pl
import pytest

from platform_assets import check as checking
from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.check import explained
from platform_assets.engine import product_files
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product import defaults
from platform_assets.product.spec import Field, Monitors, Product, Window
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.verdicts import VERDICTS
from platform_assets.store.tables import TableStore
from tests.doubles import instances, returned_orders
from tests.doubles.launcher import InProcessLauncher

pytestmark = pytest.mark.slow

LANDED = """
from driftline import DailyGrain, Field, Product, Source

SPEC = Product(
    name="returns",
    grain=DailyGrain(start="2024-01-01"),
    sources=(Source(name="orders", known_at="ordered_at", partition_by="ordered_at", arrives="rename"),),
    label="returned",
    fields=(Field(name="price", dtype="float"), Field(name="country", dtype="category", is_nullable=True)),
)
"""


@pytest.fixture
def write(product_folder: Path) -> Callable[[str, str], Product]:
    """Write a product's file where `product_files` finds it, and load it."""

    def load(name: str, text: str) -> Product:
        (product_folder / f"{name}.py").write_text(text, encoding="utf-8")
        return product_files.load(name)

    return load


def land(settings: Settings, spec: Product, rows: pl.DataFrame) -> None:
    for (day,), part in rows.group_by(pl.col("ordered_at").str.slice(0, 10), maintain_order=True):
        path = Path(naming.landing_location(settings.root, f"{spec.name}/orders", str(day), ".csv"))
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_csv(path)


@pytest.mark.costly
def test_a_product_of_landed_files_is_checked_trained_and_judged_by_defaults(
    write: Callable[[str, str], Product], settings: Settings
) -> None:
    spec = write("returns", LANDED)
    rows = returned_orders.rows(days=32, a_day=30)
    land(settings, spec, rows)
    lines = list(checking.of_product(spec, settings))
    assert [line.check for line in lines if line.state != "ok"] == ["clock"], checking.as_text("", lines)
    store = StoreResource(variables=settings.to_environment())
    defs = build_defs(specs=[spec], resources={"store": store, "launcher": InProcessLauncher(spec, settings)})
    tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-02-01"}
    with instances.forgetful() as instance:
        advance = defs.resolve_job_def(naming.job("advance", spec.name))
        assert advance.execute_in_process(instance=instance, tags=tags).success
        chosen = [dg.AssetKey(naming.asset_key(spec.name, stage)) for stage in ("checkpoint", "onnx", "evaluation")]
        retrain = defs.resolve_job_def(naming.job("retrain", spec.name))
        cutoff = "2024-02-02"
        assert retrain.execute_in_process(instance=instance, partition_key=cutoff, asset_selection=chosen).success
    tables = TableStore(settings.root, spec.name)
    features, outcomes = tables.read("features", ["2024-01-05"]), tables.read("outcomes", ["2024-01-05"])
    day = rows.filter(pl.col("ordered_at").str.starts_with("2024-01-05"))
    assert features["entity"].to_list() == [f"2024-01-05-{number}" for number in range(1, 31)]
    assert features["price"].to_list() == day["price"].cast(pl.Float64).to_list()
    assert (
        features.join(outcomes, on="entity")["label"].to_list() == (day["returned"] == "True").cast(pl.Int8).to_list()
    )
    assert outcomes["known_at"].unique().to_list() == [spec.grain.instant("2024-01-07") - timedelta(microseconds=1)]
    verdict = Ledgers(settings.root, spec.name).of(VERDICTS).read(tables.records("onnx")[cutoff].content_digest)
    assert verdict is not None
    assert {"challenger", "baseline constant", "baseline linear"} <= set(verdict.models)


def test_features_see_no_label_and_labels_see_no_field(write: Callable[[str, str], Product]) -> None:
    spec = write("returns", LANDED)
    assert "returned" not in spec.source("orders").columns().columns
    assert [*spec.label_source.columns().columns] == ["returned", "ordered_at"]
    assert spec.landing_of(spec.label_source) == spec.landing_of(spec.source("orders"))


def test_a_column_that_rows_or_labels_declare_is_not_undeclared(write: Callable[[str, str], Product]) -> None:
    spec = write("returns", LANDED)
    assert spec.declared_by_twins(spec.source("orders")) == {"returned", "ordered_at"}
    assert spec.declared_by_twins(spec.label_source) == {"price", "country", "ordered_at"}
    apart = replace(spec, sources=(spec.source("orders"), replace(spec.label_source, landing="elsewhere")))
    assert apart.declared_by_twins(apart.label_source) == frozenset()


ONE_FILE = """
from driftline import DailyGrain, OneFile, Product

SPEC = Product(
    name="returns",
    grain=DailyGrain(start="2024-01-01"),
    sources=OneFile("orders.csv", by="ordered_at"),
    label="returned",
    label_delay=3,
    fields={"price": "float"},
)
"""


def test_labels_that_a_file_fills_in_later_are_taken_in_when_they_are_known(
    write: Callable[[str, str], Product], settings: Settings, tmp_path: Path
) -> None:
    spec = write("returns", ONE_FILE)
    today = datetime.now(UTC).date()
    key, older = (f"{today - timedelta(days=days)}" for days in (1, 9))
    lines = [f"{older} 05:00:00,1,1", f"{key} 05:00:00,1,"]
    (tmp_path / "products" / "orders.csv").write_text("\n".join(["ordered_at,price,returned", *lines, ""]))
    channels = ProductStore(spec, settings).channels
    assert channels["orders"].probe(key) is not None
    assert channels["labels"].probe(key) is None, "three days more, until the label is filled in"
    assert channels["labels"].probe(older) is not None
    assert spec.source("orders").patience < spec.label_source.patience


COMPUTED = """
from datetime import timedelta

import polars as pl
from driftline import ABOUT, DailyGrain, Field, Product, Source, asked

FIELDS = (Field(name="price", dtype="float", low=0, high=10),)


def features(tables, window):
    rows = asked(tables["orders"], window, time="ordered_at", entity="id")
    return rows.select(*ABOUT, "price", weekday=pl.col("asked_at").dt.weekday().cast(pl.Int64))


SPEC = Product(
    name="returns",
    grain=DailyGrain(start="2024-01-01"),
    sources=(
        Source(
            name="orders",
            known_at="ordered_at",
            partition_by="ordered_at",
            entity="id",
            fields=FIELDS,
            known_at_of={"returned": timedelta(days=2)},
        ),
    ),
    features=features,
    fields=(*FIELDS, Field(name="weekday", dtype="int")),
    label="returned",
)
"""


def test_a_source_names_its_columns_where_fields_are_computed(write: Callable[[str, str], Product]) -> None:
    spec = write("returns", COMPUTED)
    schema = spec.source("orders").columns()
    assert [*schema.columns] == ["id", "price", "returned", "ordered_at"]
    assert [*spec.label_source.columns().columns] == ["id", "returned", "ordered_at"]
    rows = pl.DataFrame({"id": ["a", "b"], "price": [10.0, 10.5], "returned": [True, None]}).with_columns(
        ordered_at=pl.datetime(2024, 1, 2, 5, time_zone="UTC", time_unit="us")
    )
    with pytest.raises(pa.errors.SchemaErrors) as refused:
        schema.validate(rows, lazy=True)
    assert refused.value.failure_cases["failure_case"].to_list() == ["10.5"]
    window = Window(grain=spec.grain, keys=("2024-01-02",))
    day = rows.with_columns(key=pl.lit("2024-01-02"))
    assert spec.features({"orders": day}, window).drop("service_time", "asked_at").rows() == [  # type: ignore[arg-type]
        ("2024-01-02", "a", 10.0, 2),
        ("2024-01-02", "b", 10.5, 2),
    ]


def test_the_module_of_a_product_without_functions_is_its_file(write: Callable[[str, str], Product]) -> None:
    spec = write("returns", LANDED)
    assert spec.module == f"{product_files.FOLDER}.returns"
    assert replace(spec, title="Another").module == spec.module


def test_each_value_that_a_file_leaves_out_has_a_reason(write: Callable[[str, str], Product]) -> None:
    spec = write("returns", LANDED)
    given = {item.name for item in fields(spec) if defaults.reason(spec, item.name) is None}
    assert given == {"name", "grain", "sources", "fields", "label"}
    assert {*defaults.DEFAULTS} | {*defaults.REASONS} == {item.name for item in fields(spec)} - given
    changed = replace(spec, title="Returns?", holdout=10, min_keys=31, monitors=Monitors(season=1))
    assert {item.name for item in fields(spec) if defaults.reason(changed, item.name) is None} - given == {
        *("title", "description"),
        *("holdout", "min_keys", "monitors"),
    }


def test_a_mapping_says_as_much_as_fields(write: Callable[[str, str], Product]) -> None:
    spec = write(
        "returns",
        LANDED.replace(
            'fields=(Field(name="price", dtype="float"), Field(name="country", dtype="category", is_nullable=True)),',
            'fields={"price": "float", "unit_count": "int"},',
        ),
    )
    assert spec.fields == (Field(name="price", dtype="float"), Field(name="unit_count", dtype="int"))
    assert spec.fields[1].description == "Unit count"


def test_explain_prints_every_value_with_its_reason_in_80_columns(write: Callable[[str, str], Product]) -> None:
    text = explained.as_text(write("returns", LANDED))
    assert max(map(len, text.splitlines())) <= explained.WIDTH
    given, left_out, *sources = text.split("\n\n")[1:]
    assert [line.split()[0] for line in given.splitlines()[1:]] == ["name", "grain", "sources", "fields", "label"]
    words = " ".join(left_out.split())
    assert all(f"({reason})" in words for reason in [*defaults.REASONS.values()])
    assert all(f"{name} " in words for name in defaults.DEFAULTS)
    assert [part.partition(":")[0].partition(",")[0] for part in sources] == ["Source orders", "Source labels"]
    assert "price float, country category or null, ordered_at moment" in " ".join(sources[0].split())
