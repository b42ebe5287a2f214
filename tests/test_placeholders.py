"""A broken file of one product: servers show it and continue with the others, everything else refuses to load."""

import re
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import ONLY_PRODUCT, Settings, shows_broken_products
from platform_assets.cli import main
from platform_assets.engine import product_files
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.doubles import watched
from tests.doubles.recorded import SPEC

pytestmark = pytest.mark.slow

BROKEN = {
    "syntax": "SPEC = (\n",
    "missing": "import nothing_of_this_name\n",
    "value": "int('x')\n",
    "leaves": "raise SystemExit(0)\n",
    "outcome": "class Odd(BaseException): pass\nraise Odd\n",
    "empty": "",
    "named": "from tests.doubles.recorded import SPEC\n",
    "two-words": "1 / 0\n",
    "unbuilt": "from dataclasses import replace\nfrom tests.doubles.recorded import SPEC as OTHER\n"
    "SPEC = replace(OTHER, name='unbuilt', features=None)\n",
}
TWIN = """
from dataclasses import replace
from tests.doubles.recorded import SPEC as OTHER
SPEC = replace(
    OTHER, name="{}", sources=tuple(replace(each, landing={}) for each in OTHER.sources)
)
"""


@pytest.fixture
def write(product_folder: Path) -> Callable[[str, str], Path]:
    """Write a product's file where discovery finds it."""

    def written(name: str, text: str) -> Path:
        path = product_folder / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_a_run_builds_its_own_product_and_meets_no_broken_file_of_another(
    write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("value", BROKEN["value"])
    monkeypatch.setenv(ONLY_PRODUCT, "flight_delays")
    definitions, everything = build_defs(), product_files.load_each()[0]
    assert len(everything) > 1
    assert {job.name.partition("__")[2] for job in definitions.jobs or ()} == {"flight_delays"}
    monkeypatch.setenv(ONLY_PRODUCT, "value")
    with pytest.raises(ValueError, match=r"value\.py.*cannot be loaded"):
        build_defs()


@pytest.mark.costly
@pytest.mark.parametrize("name", BROKEN)
def test_a_server_shows_a_broken_file_and_continues_with_the_others(
    name: str, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {product.name for product in product_files.load_all()}
    sound = build_defs()
    path = write(name, BROKEN[name])
    monkeypatch.setenv("DRIFTLINE_BROKEN_PRODUCTS", "show")
    definitions = build_defs()
    assert {job.name for job in definitions.jobs or ()} == {job.name for job in sound.jobs or ()}
    assert {item.name for item in definitions.sensors or ()} == {item.name for item in sound.sensors or ()}
    stands_in = name.replace("-", "_x2d_")
    added = set(definitions.resolve_asset_graph().get_all_asset_keys()) - set(
        sound.resolve_asset_graph().get_all_asset_keys()
    )
    assert added == {dg.AssetKey([stands_in, "broken_file"])}
    (spec,) = [item for item in definitions.resolve_all_asset_specs() if item.key in added]
    assert spec.metadata["file"].value == str(path)
    assert str(path) in spec.metadata["error"]
    assert spec.metadata["error"] in (spec.description or "")
    assert others == {item.key.path[0] for item in definitions.resolve_all_asset_specs() if item.key not in added}
    with pytest.raises(dg.Failure) as caught:
        dg.materialize([asset for asset in definitions.assets or () if getattr(asset, "keys", ()) == added])
    assert caught.value.description == spec.metadata["error"]
    monkeypatch.delenv("DRIFTLINE_BROKEN_PRODUCTS")
    with pytest.raises(ValueError, match=r"\.py") as refused:
        build_defs()
    assert str(path) in str(refused.value)


def test_a_line_of_the_file_is_named_even_if_the_error_occurs_deeper(write: Callable[[str, str], Path]) -> None:
    path = write("deeper", "\nfrom platform_assets.base import keys\n\nGRAIN = keys.BatchGrain(count=0)\n")
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        product_files.load("deeper")
    message = "ValueError: count is 0; expected 1 to 9999 for width 4"
    assert str(caught.value) == f"{path}, line 4, cannot be loaded: {message}."


def test_every_broken_file_is_named_at_once(write: Callable[[str, str], Path]) -> None:
    places = [write(name, BROKEN[name]) for name in ("syntax", "missing")]
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        product_files.load_all()
    assert all(str(path) in str(caught.value) for path in places)


def test_of_two_products_in_one_folder_the_one_with_its_name_continues(write: Callable[[str, str], Path]) -> None:
    write("orders", TWIN.format("orders", None))
    write("borrows", TWIN.format("borrows", "'orders/' + each.name"))
    loaded, broken = product_files.load_each()
    assert "orders" in {spec.name for spec in loaded}
    assert [item.name for item in broken] == ["borrows"]
    assert "two products land in one folder, landing/orders/" in broken[0].error


@pytest.mark.parametrize(
    ("environ", "is_shown"),
    [
        ({}, False),
        ({"DRIFTLINE_BROKEN_PRODUCTS": "show"}, True),
        ({"DRIFTLINE_ENV": "cluster"}, True),
        ({"DRIFTLINE_ENV": "cluster", "DRIFTLINE_BROKEN_PRODUCTS": "refuse"}, False),
        ({"DRIFTLINE_ENV": "cluster", "DAGSTER_IS_DEFS_VALIDATION_CLI": "1"}, False),
        ({"DRIFTLINE_BROKEN_PRODUCTS": "show", "DAGSTER_IS_DEFS_VALIDATION_CLI": "1"}, False),
    ],
)
def test_servers_show_products_that_validation_refuses(environ: dict[str, str], is_shown: bool) -> None:
    assert shows_broken_products(environ) is is_shown


@pytest.mark.costly
def test_stored_data_of_a_broken_product_stays_and_is_shown(
    write: Callable[[str, str], Path], settings: Settings, tmp_path: Path, capsys
) -> None:
    watched.write(settings, SPEC, SPEC.grain.span("2020-01-11", "2020-01-14"))
    path = write(SPEC.name, BROKEN["syntax"])
    number, release = Ledgers(settings.root, SPEC.name).latest(naming.RELEASES)
    assert TableStore(settings.root, SPEC.name).records("decision")
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["report", SPEC.name, "--out", str(page)]) == 0
    for text in (out, page.read_text(encoding="utf-8")):
        assert str(path) in text
        assert "SyntaxError" in text
        assert release["channels"]["live"]["digest"][:12] in text
    assert re.search(rf"release +{number}\b", out)
