"""The wheel: two names, and everything in them works in an environment that does not have the checkout."""

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import driftline

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
PRODUCT = REPOSITORY / "tests" / "doubles" / "products" / "live_parts.py"
IMPORT_ALL = """
import importlib, json, pkgutil, sys
import driftline, platform_assets
for module in pkgutil.walk_packages(platform_assets.__path__, "platform_assets."):
    if module.name != "platform_assets.serving.run.bento":  # serves when it is imported
        importlib.import_module(module.name)
print(json.dumps([driftline.__file__, [name for name in dir(driftline) if getattr(driftline, name) is None]]))
"""
BUILD = """
import json
import live_parts
from driftline import build_defs
defs = build_defs(specs=[live_parts.SPEC])
print(json.dumps([
    sorted(spec.key.path[-1] for spec in defs.resolve_all_asset_specs()),
    sorted(sensor.name for sensor in defs.sensors),
    sorted(defs.resources or {}),
]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """Python of a fresh environment: the wheel, and the installed libraries without the checkout's own entry."""
    folder = wheel.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder that a .pth file adds has its own .pth files ignored: those that lead to the checkout.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return folder / "bin" / "python"


def _run(python: Path, code: str, folder: Path) -> object:
    command = [python, "-c", code]
    ended = subprocess.run(command, cwd=folder, env={"HOME": str(folder)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_it_installs_two_names_and_not_what_this_checkout_declares(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"driftline", "platform_assets"}
    assert "platform_assets/definitions.py" not in names
    assert {"platform_assets/operations/report/templates/page.html.jinja", "platform_assets/cli.py"} <= {*names}


@pytest.mark.costly
def test_every_module_imports_without_the_checkout(python: Path, tmp_path: Path) -> None:
    place, missing = _run(python, IMPORT_ALL, tmp_path)  # type: ignore[misc]
    assert Path(place).is_relative_to(python.parents[1])
    assert missing == []


@pytest.mark.costly
def test_a_products_definitions_are_built_by_its_public_name(python: Path, tmp_path: Path) -> None:
    shutil.copy(PRODUCT, tmp_path)
    assets, sensors, resources = _run(python, BUILD, tmp_path)  # type: ignore[misc]
    assert {"features", "checkpoint", "release", "decision"} <= {*assets}
    assert {"driftline_landings", "driftline_retrain"} <= {*sensors}
    assert resources == []


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((REPOSITORY / "driftline/__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            seen[alias.asname or alias.name] = (node.module, alias.name)
    loaded = {}
    for name, place in driftline.NAMES.items():
        module, _, inside = place.partition(":")
        loaded[name] = (module, inside) if inside else tuple(module.rsplit(".", 1))
    assert seen == loaded


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match=r"driftline has no 'Produkt'; it has .*Product, "):
        driftline.Produkt  # noqa: B018
    command = [sys.executable, "-c", "import driftline; driftline.Produkt"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.stderr.endswith("Did you mean: 'Product'?\n"), ended.stderr
