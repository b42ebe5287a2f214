"""A proposed change of a product's file holds when it is applied, or there is none and the reason is given."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from platform_assets.product.changes import value_of
from platform_assets.show import proposal
from platform_assets.specs.base import ProductSpec

HEAD = """from dataclasses import replace
from platform_assets.learners.boosted import LightGbm
from platform_assets.specs.base import ProductSpec, Training
from tests.doubles import tiny_product as tiny

def features(tables, window):
    return tiny.features(tables, window)

PARTS = {name: getattr(tiny.SPEC, name) for name in (
    "grain", "sources", "lookback", "fields", "entity", "label", "label_delay", "holdout", "min_keys")}
FEWER = 4
"""
FILE = (
    HEAD
    + """
SETTINGS = {"num_leaves": 31}  # größer
SPEC = ProductSpec(
    name="tiny", title="Tiny", description="A product.", features=features, **PARTS,
    model=LightGbm(rounds=100, settings=SETTINGS),
    training=Training(epochs=5, settings={"widths": (16, 16)}, learning_rate=2 * 1e-3),
)
"""
)


def load(folder: Path, text: str) -> ProductSpec:
    path = folder / "tiny.py"
    path.write_text(text, encoding="utf-8")
    module_spec = importlib.util.spec_from_file_location(f"tiny_{folder.name}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    spec: ProductSpec = module.SPEC
    return spec


def test_the_diff_applies_and_configures_what_was_proposed(tmp_path: Path) -> None:
    values = {
        "epochs": 7,
        "settings.widths": (8,),
        "settings.dropout": 0.25,
        "weight_decay": 3e-05,
        "learner.rounds": 250,
        "learner.settings.num_leaves": 15,
        "learner.settings.path_smooth": 20.0,
        "learner.patience": None,
    }
    change = proposal.of(load(tmp_path, FILE), values)
    assert change.why == ""
    assert '+SETTINGS = {"num_leaves": 15, "path_smooth": 20.0}  # größer' in change.diff
    subprocess.run(["git", "apply", "-"], input=change.diff, text=True, cwd=tmp_path, check=True)
    written = load(tmp_path, (tmp_path / "tiny.py").read_text(encoding="utf-8"))
    assert {name: value_of(written, name) for name in values} == values


def test_todays_settings_are_not_a_change(tmp_path: Path) -> None:
    change = proposal.of(load(tmp_path, FILE), {"epochs": 5})
    assert (change.diff, change.text()) == ("", "The file has these settings already:\n  --set epochs=5")


@pytest.mark.parametrize(
    ("old", "new", "name", "why"),
    [
        ("epochs=5", "epochs=FEWER + 1", "epochs", "epochs is 'FEWER + 1', which is computed; expected a plain value"),
        ("epochs=5", "epochs=FEWER, seed=FEWER", "epochs", "FEWER is assigned 1 times and used 2; expected once"),
        ("settings=SETTINGS", "settings=dict(SETTINGS)", "learner.settings.num_leaves", "cannot be added to 'dict(S"),
        ("settings=SETTINGS", "**{'settings': SETTINGS}", "learner.rounds", "takes arguments by **"),
        ("    model=", "    is_live=False, holdout=3, model=", "epochs", "cannot be loaded: TypeError"),
        ("SPEC = ProductSpec(", "SPEC = replace(tiny.SPEC); OTHER = dict(", "epochs", "would not configure"),
    ],
)
def test_settings_that_cannot_be_located_are_listed_with_the_reason(
    tmp_path: Path, old: str, new: str, name: str, why: str
) -> None:
    spec = load(tmp_path, FILE)
    (tmp_path / "tiny.py").write_text(FILE.replace(old, new), encoding="utf-8")
    change = proposal.of(spec, {name: 9})
    assert change.diff == ""
    assert why in change.why
    assert change.text() == f"No diff: {change.why}\nThe same for one training:\n  --set {name}=9"
