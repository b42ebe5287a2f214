"""One product's broken file: servers show it and go on with the others, everything else refuses to load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from platform_assets import naming, specs
from platform_assets.cli import main
from platform_assets.definitions import build_defs
from platform_assets.settings import Settings, shows_broken_products
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from tests.doubles import watched
from tests.doubles.recorded import SPEC

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
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a product's file where discovery looks, and forget its module afterwards."""
    (tmp_path / "files").mkdir()
    monkeypatch.setattr(specs, "__path__", [*specs.__path__, str(tmp_path / "files")])

    def written(name: str, text: str) -> Path:
        place = tmp_path / "files" / f"{name}.py"
        place.write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"{specs.__name__}.{name}", raising=False)
        return place

    return written


@pytest.mark.parametrize("name", BROKEN)
def test_a_server_shows_a_broken_file_and_goes_on_with_the_others(
    name: str, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {product.name for product in specs.load_all()}
    sound = build_defs()
    place = write(name, BROKEN[name])
    monkeypatch.setenv("DRIFTLINE_BROKEN_PRODUCTS", "show")
    shown = build_defs()
    assert {job.name for job in shown.jobs or ()} == {job.name for job in sound.jobs or ()}
    assert {each.name for each in shown.sensors or ()} == {each.name for each in sound.sensors or ()}
    stands_in = name.replace("-", "_x2d_")
    added = set(shown.resolve_asset_graph().get_all_asset_keys()) - set(
        sound.resolve_asset_graph().get_all_asset_keys()
    )
    assert added == {dg.AssetKey([stands_in, "broken_file"])}
    (spec,) = [each for each in shown.resolve_all_asset_specs() if each.key in added]
    assert spec.metadata["file"].value == str(place)
    assert str(place) in spec.metadata["error"]
    assert spec.metadata["error"] in (spec.description or "")
    assert others == {each.key.path[0] for each in shown.resolve_all_asset_specs() if each.key not in added}
    with pytest.raises(dg.Failure) as caught:
        dg.materialize([asset for asset in shown.assets or () if asset.keys == added])
    assert caught.value.description == spec.metadata["error"]
    monkeypatch.delenv("DRIFTLINE_BROKEN_PRODUCTS")
    with pytest.raises(ValueError, match=r"\.py") as refused:
        build_defs()
    assert str(place) in str(refused.value)


def test_a_line_of_the_file_is_named_also_where_the_fault_lies_deeper(write: Callable[[str, str], Path]) -> None:
    place = write("deeper", "\nfrom platform_assets import keys\n\nGRAIN = keys.BatchGrain(count=0)\n")
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        specs.load("deeper")
    words = "ValueError: count is 0; expected 1 to 9999 for width 4"
    assert str(caught.value) == f"{place}, line 4, cannot be loaded: {words}."


def test_every_broken_file_is_named_at_once(write: Callable[[str, str], Path]) -> None:
    places = [write(name, BROKEN[name]) for name in ("syntax", "missing")]
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        specs.load_all()
    assert all(str(place) in str(caught.value) for place in places)


def test_of_two_products_in_one_folder_the_one_whose_name_it_bears_goes_on(write: Callable[[str, str], Path]) -> None:
    write("orders", TWIN.format("orders", None))
    write("borrows", TWIN.format("borrows", "'orders/' + each.name"))
    found, broken = specs.load_each()
    assert "orders" in {spec.name for spec in found}
    assert [each.name for each in broken] == ["borrows"]
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
def test_servers_show_what_validation_refuses(environ: dict[str, str], is_shown: bool) -> None:
    assert shows_broken_products(environ) is is_shown


def test_a_command_refuses_and_says_which_file(write: Callable[[str, str], Path], capsys) -> None:
    place = write("leaves", BROKEN["leaves"])
    assert main(["check", "leaves"]) == 1
    assert f"{place}, line 1, cannot be loaded: SystemExit: 0." in capsys.readouterr().out


def test_what_is_stored_of_a_broken_product_stays_and_is_shown(
    write: Callable[[str, str], Path], settings: Settings, tmp_path: Path, capsys
) -> None:
    watched.write(settings, SPEC, SPEC.grain.span("2020-01-11", "2020-01-14"))
    place = write(SPEC.name, BROKEN["syntax"])
    number, release = Ledgers(settings.root, SPEC.name).latest(naming.RELEASES)
    assert TableStore(settings.root, SPEC.name).records("decision")
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["report", SPEC.name, "--out", str(page)]) == 0
    for told in (out, page.read_text(encoding="utf-8")):
        assert str(place) in told
        assert "SyntaxError" in told
        assert release["channels"]["live"]["digest"] in told
    assert f"release   {number}" in out
