"""`driftline check` of a file with 400 columns, and of a product file that gives one name twice."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from platform_assets import check
from platform_assets.cli import main
from platform_assets.product.spec import Field, Product, Tables, Window
from tests.checking import leaks

pytestmark = pytest.mark.slow

NAMES = [f"c{number:03d}" for number in range(395)]


def wide(names: list[str]) -> Product:
    """Return the product without a leak whose parcels come with these columns more, each of them a field."""
    values = {name: (pl.col("weight_kg") * (number + 3) % 7.0).round(3) for number, name in enumerate(names)}
    spec = leaks.product(replace(leaks.HONEST, rows=leaks.with_columns(**values)))

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        added = tables["parcels"].select("key", *names, entity="parcel")
        return spec.features(tables, window).join(added, on=["key", "entity"], how="left", maintain_order="left")

    fields = tuple(Field(name=name, dtype="float", description=f"Sensor {name}.") for name in names)
    return replace(spec, features=features, fields=(*spec.fields, *fields))


@pytest.mark.costly
def test_a_file_with_400_columns_passes() -> None:
    spec = wide(NAMES)
    assert spec.history is not None
    delivered = spec.history.deliver("parcels", spec.grain.first)
    assert delivered is not None
    assert delivered.partition(b"\n")[0].count(b",") == 399
    lines = {line.check: line for line in check.of_product(spec)}
    assert [line for line in lines.values() if line.is_problem] == []
    assert lines["features"].state == lines["model"].state == "ok", lines


def test_two_sources_of_one_name_are_one_sentence(
    tmp_path: Path, product_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a person meets it: the product's file cannot be loaded."""
    (product_folder / "twice_named.py").write_text(
        "from dataclasses import replace\n"
        "from tests.checking import leaks\n"
        "SPEC = leaks.product(leaks.HONEST)\n"
        "SPEC = replace(SPEC, name='twice_named', sources=(SPEC.sources[0], *SPEC.sources))\n"
    )
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    assert main(["check", "twice_named"]) == 1
    output = capsys.readouterr()
    assert "'parcels', 'parcels'" in output.out + output.err
    assert "expected at least one and no name twice" in output.out + output.err
    assert "Traceback" not in output.out + output.err
