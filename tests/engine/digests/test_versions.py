"""The version of a stage's rows: the product's own functions and values, and a number per maker."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.keys import BatchGrain, DailyGrain
from platform_assets.data.features_maker import Building
from platform_assets.engine import digests, product_files
from platform_assets.engine.digests import definitions, modules
from platform_assets.product.spec import Product
from platform_assets.training import versions
from tests.doubles.products import hourly_temperature

SPEC = hourly_temperature.SPEC
PRODUCTS = (SPEC, *product_files.load_all())


@pytest.mark.parametrize("spec", PRODUCTS, ids=lambda spec: str(spec.name))
def test_no_module_of_the_platform_changes_a_version(spec: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = versions.current(spec), modules._read

    def reworded(module: str) -> Any:
        digest, imports = read(module)
        return (digest if modules.is_own(module) else f"reworded {digest}", imports)

    monkeypatch.setattr(modules, "_read", reworded)
    assert versions.current(spec) == before
    assert (
        digests.code_digest(Building.for_product(spec)) != digests.code_digest(Building.for_product(SPEC))
        or spec is SPEC
    )


@pytest.mark.parametrize("spec", PRODUCTS, ids=lambda spec: str(spec.name))
def test_the_end_of_the_keys_changes_no_version(spec: Product) -> None:
    grain = spec.grain
    later = replace(grain, count=grain.count + 1) if isinstance(grain, BatchGrain) else replace(grain, end=None)
    assert versions.current(replace(spec, grain=later, is_live=True, history=None)) == versions.current(spec)
    if isinstance(grain, DailyGrain):
        zone = versions.current(replace(spec, grain=replace(grain, time_zone="Asia/Tokyo"), history=None))
        assert zone["features"] != versions.current(spec)["features"]


def test_a_makers_number_changes_its_version_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions.current(SPEC)
    monkeypatch.setattr(Building, "NUMBER", Building.NUMBER + 1)
    after = versions.current(SPEC)
    assert {stage for stage in before if before[stage] != after[stage]} == {"features"}


FILE = """\
from helping import rate

FACTOR = 2
OTHER = 3


class Shared:
    def both(self):
        return FACTOR


def features(tables, window):
    return rate(tables) * FACTOR


def label(rows):
    return rows * OTHER
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("making.py", "FACTOR = 2", "FACTOR = 4", True),
        ("making.py", "OTHER = 3", "OTHER = 4", False),
        ("making.py", "return rate(tables)", "return 1 + rate(tables)", True),
        ("helping.py", "return 1", "return 2", True),
        ("helping.py", "return 1", "return 1  # as before", False),
    ],
)
def test_a_version_follows_the_products_function_its_values_and_its_own_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, changes: bool
) -> None:
    def features(**texts: str) -> Any:
        for name, text in {"making.py": FILE, "helping.py": "def rate(tables):\n    return 1\n", **texts}.items():
            (tmp_path / name).write_text(text)
        for name in ("making", "helping"):
            sys.modules.pop(name, None)
        for cached in (modules._read, modules.closure, definitions.closure, definitions._definition):
            cached.cache_clear()
        import importlib

        importlib.invalidate_caches()
        return importlib.import_module("making").features

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    modules.path_of.cache_clear()
    first = definitions.digest(features(), is_own=True)
    text = {"making.py": FILE, "helping.py": "def rate(tables):\n    return 1\n"}[file]
    assert (first != definitions.digest(features(**{file: text.replace(old, new)}), is_own=True)) is changes
