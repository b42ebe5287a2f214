"""What goes wrong in a first product is named in one sentence, with the word that was meant."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from platform_assets import check as checking
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.cli import main
from platform_assets.engine import product_files
from tests.doubles import returned_orders

pytestmark = pytest.mark.slow

PRODUCT = """
import pandas
import polars as pl
from driftline import DailyGrain, Field, Product, Source

SPEC = Product(
    name="{name}",
    grain=DailyGrain(start="2024-01-01"),
    sources=(Source(name="orders", known_at="ordered_at", partition_by="ordered_at"{source}),),
    label="returned",
    fields={fields},
{more})
"""
FIELDS = '{"price": "float"}'
PANDAS = """
def features(tables, window):
    moment = pl.col("ordered_at")
    rows = tables["orders"].filter(pl.col("key").is_in(window.keys))
    entity = pl.format("{}-{}", "key", pl.col("source_offset") + 1)
    about = {"entity": entity, "service_time": moment, "asked_at": moment}
    return pandas.DataFrame(rows.select("key", **about, price="price").to_dicts())


SPEC = Product(
    name="%s",
    grain=SPEC.grain,
    sources=(Source(name="orders", known_at="ordered_at", partition_by="ordered_at"),),
    label="returned",
    features=features,
    fields=SPEC.fields,
)
"""
SCHEMA = """
import pandera as pa
from driftline import DailyGrain, Product, Source
import polars as pl


def schema():
    return pa.DataFrameSchema({"price": pa.Column(pl.Float64), "ordered_at": pa.Column(pl.Datetime("us", "UTC"))})


SPEC = Product(
    name="%s",
    grain=DailyGrain(start="2024-01-01"),
    sources=(Source(name="orders", schema=schema, known_at="ordered_at", partition_by="ordered_at"),),
    label="returned",
    fields={"price": "float"},
)
"""


@pytest.fixture
def write(product_folder: Path, settings: Settings, request: pytest.FixtureRequest) -> Callable[[str], str]:
    name = f"first_{abs(hash(request.node.name)) % 10**8}"

    def of(text: str) -> str:
        (product_folder / f"{name}.py").write_text(text, encoding="utf-8")
        rows = returned_orders.rows(days=32, a_day=10)
        for (day,), part in rows.group_by(pl.col("ordered_at").str.slice(0, 10), maintain_order=True):
            path = Path(naming.landing_location(settings.root, f"{name}/orders", str(day), ".csv"))
            path.parent.mkdir(parents=True, exist_ok=True)
            part.with_columns(return_date="ordered_at").write_csv(path)
        return name

    of.name = name  # type: ignore[attr-defined]
    return of


def text_of(write: Callable[[str], str], fields: str = FIELDS, source: str = "", more: str = "") -> str:
    name: str = write.name  # type: ignore[attr-defined]
    return (
        PRODUCT.replace("{name}", name).replace("{fields}", fields).replace("{source}", source).replace("{more}", more)
    )


def checked(name: str, settings: Settings) -> dict[str, checking.Line]:
    return {line.check: line for line in checking.of_product(product_files.load(name), settings)}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"more": "    titel='x',\n"}, "Did you mean 'title'? Product has name, short_name, title"),
        ({"more": "    hold_out=9,\n"}, "Did you mean 'holdout'?"),
        ({"source": ", knownat='x'"}, "Did you mean 'known_at'? Source has name, description"),
        ({"fields": "(Field(name='price', type='float'),)"}, "Field has name, dtype"),
    ],
)
def test_an_unknown_field_is_named_with_what_was_meant(
    more: dict[str, str], sentence: str, write: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", write(text_of(write, **more))]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_an_unknown_import_product_and_command_are_named(
    write: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = write(text_of(write).replace("DailyGrain, Field, Product", "DailyGrains, Field, Product"))
    assert main(["check", name]) == 1
    assert "Did you mean 'DailyGrain'?" in capsys.readouterr().out
    assert main(["explain", "flight_delay"]) == 1
    assert "Did you mean 'flight_delays'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["chek", "flight_delays"])
    assert (
        capsys.readouterr().err
        == "driftline: 'chek' is not a command. Did you mean 'check'? `driftline --help` lists them.\n"
    )


def test_pandas_is_named_where_polars_is_expected(write: Callable[[str], str], settings: Settings) -> None:
    name = write(text_of(write) + PANDAS % write.name)  # type: ignore[attr-defined]
    line = checked(name, settings)["features"]
    assert line.is_problem
    assert "pandas.DataFrame; expected a polars DataFrame (`pl.from_pandas(...)` makes one)" in line.message


def test_the_pandera_of_pandas_is_named(write: Callable[[str], str], settings: Settings) -> None:
    name = write(SCHEMA % write.name)  # type: ignore[attr-defined]
    line = checked(name, settings)["source orders"]
    assert line.is_problem
    assert line.message.endswith("Write `import pandera.polars as pa`: `import pandera` is for pandas.")


@pytest.mark.costly
def test_ids_and_leaks_by_name_are_noted(write: Callable[[str], str], settings: Settings) -> None:
    fields = '{"price": "float", "order_id": "category", "return_date": "category"}'
    line = checked(write(text_of(write, fields)), settings)["names"]
    assert line.state == "note"
    assert "order_id is another in nearly every row" in line.message
    assert "return_date sounds like the label returned" in line.message
    assert "price" not in line.message


def test_ordinary_names_are_not_noted(write: Callable[[str], str], settings: Settings) -> None:
    fields = '(Field(name="price", dtype="float"), Field(name="country", dtype="category", is_nullable=True))'
    assert "names" not in checked(write(text_of(write, fields)), settings)
