"""A product is a Dagster component: the same definitions as from the factory, each once, and scaffolded by `dg`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.component_scaffolding import scaffold_object

from platform_assets.automation.factory import build_defs
from platform_assets.components import ProductComponent
from platform_assets.engine import product_files
from platform_assets.engine.digests import modules

pytestmark = pytest.mark.slow

TYPE = "driftline.ProductComponent"
PRODUCTS = product_files.names()
PROJECT = '[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "another"\n'


@pytest.fixture(autouse=True)
def _products_of_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what was loaded: a process lists it with its products."""
    monkeypatch.setattr(product_files, "_MODULES", {})
    monkeypatch.setattr(modules, "_OF_PRODUCTS", set())


def described(defs: dg.Definitions) -> dict[str, list[str]]:
    """Return the names of all definitions, by kind; resolving them detects duplicates."""
    repository = defs.get_repository_def()
    graph = defs.resolve_asset_graph()
    return {
        "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
        "checks": sorted(key.to_user_string() for key in graph.asset_check_keys),
        "jobs": sorted(repository.job_names),
        "schedules": sorted(item.name for item in repository.schedule_defs),
        "sensors": sorted(
            f"{item.name} {sorted(job.name for job in (item.jobs if item.has_jobs else ()))}"
            for item in repository.sensor_defs
        ),
        "resources": sorted(defs.resources or {}),
    }


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_component_defines_the_same_as_the_factory(product: str) -> None:
    definitions = dg.build_defs_for_component(ProductComponent(module=f"platform_assets.products.{product}"))
    assert described(definitions) == described(build_defs(specs=[product_files.load(product)]))
    assert definitions.resources in (None, {})


def test_a_module_that_is_not_there_becomes_one_asset_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = r"^nowhere\.product cannot be loaded: ModuleNotFoundError: No module named 'nowhere'\.$"
    (spec,) = dg.build_defs_for_component(ProductComponent(module="nowhere.product")).resolve_all_asset_specs()
    assert spec.key.path == ["nowhere", "broken_file"]
    assert re.match(sentence, spec.metadata["error"])
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(ValueError, match=sentence):
        dg.build_defs_for_component(ProductComponent(module="nowhere.product"))


@pytest.mark.parametrize("written", ["yaml", "python"])
def test_all_products_of_another_project_share_sensors_and_resources(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"another_{written}"
    folder = tmp_path / root / "defs"
    folder.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace("another", root), encoding="utf-8")
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    for number, product in enumerate(("churn", "visits")):
        scaffold_object(folder / product, TYPE, None, written if number else "yaml", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = described(dg.load_from_defs_folder(path_within_project=folder))
    specs = [product_files.load_module(f"{root}.defs.{product}.product") for product in ("churn", "visits")]
    assert loaded == described(build_defs(specs=specs))


def dg_in(copy: Path, *args: str) -> str:
    """Run `dg` in a copy of the project, whose packages take precedence over the installed ones; return its output."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [str(Path(sys.executable).with_name("dg")), *args]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.thorough
def test_dg_scaffolds_in_a_copy_of_the_project_and_nothing_is_defined_twice(tmp_path: Path, repository: Path) -> None:
    for package in ("driftline", "platform_assets", "resources", "sensors"):
        shutil.copytree(repository / package, tmp_path / package)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    assert f'"{TYPE}"' in dg_in(tmp_path, "list", "components", "--json")
    result = dg_in(tmp_path, "scaffold", "defs", TYPE, "nowhere")
    folder = tmp_path / "platform_assets" / "defs"
    assert "platform_assets/defs/nowhere" in result
    assert yaml.safe_load((folder / "nowhere/defs.yaml").read_text()) == {
        "type": TYPE,
        "attributes": {"automation": False},
    }
    (folder / "mine.py").write_text('import dagster as dg\n\n\n@dg.asset(key="mine")\ndef mine(): ...\n')
    listed = [item["asset_key"] for item in json.loads(dg_in(tmp_path, "list", "defs", "--json"))["assets"]]
    assert {key.partition("/")[0] for key in listed} == {*PRODUCTS, "nowhere", "mine"}
    assert len(listed) == len({*listed})
