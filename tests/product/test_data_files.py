# ruff: noqa: E501 - texts of products
"""A file next to a product's file counts as its code: by name, by content, and only where it is used."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest

from platform_assets.base.settings import Settings
from platform_assets.check import of_product
from platform_assets.data import features, raw, validated
from platform_assets.data.features_maker import Building
from platform_assets.data.outcomes_maker import Labelling
from platform_assets.engine import digests
from platform_assets.engine.digests import definitions, modules, reads
from platform_assets.engine.outside import ALONE
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.data_files import DataFileProblem
from platform_assets.store.tables import TableStore
from platform_assets.training.steps import instructions
from platform_assets.training.steps.jobs import ExportJob
from tests.doubles import numbered_batches
from tests.doubles.built import built
from tests.doubles.products import hourly_temperature

pytestmark = pytest.mark.slow

SPEC = hourly_temperature.SPEC
IMPORT = "from platform_assets.product.spec import data_file\n"
USES = {
    "a value": "LEAD = int(data_file('lead.txt').read_text())\n\ndef features(*a):\n    return LEAD\n",
    "a call": "def features(*a):\n    return int(data_file('lead.txt').read_text())\n",
    "a keyword": "def features(*a):\n    return int(data_file(name='lead.txt').read_text())\n",
    "a path": "LEAD = data_file('lead.txt')\n\ndef features(*a):\n    return int(LEAD.read_text())\n",
    "a function": "def lead():\n    return data_file('lead.txt')\n\ndef features(*a):\n    return int(lead().read_text())\n",
    "a cache": "import functools\n\n@functools.cache\ndef lead():\n    return int(data_file('lead.txt').read_text())\n\n"
    "def features(*a):\n    return lead()\n",
    "another module": "from a_helper import lead\n\ndef features(*a):\n    return lead()\n",
    "another name": "from platform_assets.product.spec import data_file as own\n\ndef features(*a):\n"
    "    return int(own('lead.txt').read_text())\n",
    "a default": "def features(*a, lead=data_file('lead.txt')):\n    return int(lead.read_text())\n",
    "an argument": "import functools\n\ndef build(lead, *a):\n    from pathlib import Path\n    return int(Path(lead).read_text())\n\n"
    "features = functools.partial(build, data_file('lead.txt'))\n",
    "an argument as text": "import functools\n\ndef build(lead, *a):\n    from pathlib import Path\n    return int(Path(lead).read_text())\n\n"
    "features = functools.partial(build, str(data_file('lead.txt')))\n",
}


def forget() -> None:
    importlib.invalidate_caches()
    for kept in (modules.path_of, modules._read, modules.closure, definitions.closure, definitions._definition):
        kept.cache_clear()


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Return what writes a product's file next to `lead.txt` and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "lead.txt").write_text("30", encoding="utf-8")

    def load(text: str, file: str = "a_product") -> ModuleType:
        (tmp_path / f"{file}.py").write_text(IMPORT + text, encoding="utf-8")
        for name in (file, "a_helper"):
            sys.modules.pop(name, None)
        forget()
        with reads.guarded(file):
            return importlib.import_module(file)

    yield load
    for name in ("a_product", "a_helper"):
        sys.modules.pop(name, None)


def stages(module: Any) -> dict[str, str]:
    spec = replace(SPEC, features=module.features, label=getattr(module, "label", SPEC.label))
    makers = {"features": Building.for_product(spec), "outcomes": Labelling.for_product(spec)}
    return {name: digests.code_digest(maker) for name, maker in makers.items()}


@pytest.mark.parametrize("text", USES.values(), ids=USES)
def test_a_changed_file_changes_the_digest_of_the_stage_that_uses_it_and_no_other(
    text: str, loaded: Callable[..., ModuleType], tmp_path: Path
) -> None:
    loaded("def lead():\n    return int(data_file('lead.txt').read_text())\n", "a_helper")
    text += "\ndef label(rows):\n    return rows\n"
    first = loaded(text)
    with reads.guarded("a_product"):
        assert first.features() == 30
    before = stages(first)
    assert stages(loaded(text)) == before
    (tmp_path / "lead.txt").write_text("45", encoding="utf-8")
    after_in_process = stages(first)
    second = loaded(text)
    with reads.guarded("a_product"):
        assert second.features() == 45
    after = stages(second)
    assert after["features"] != before["features"]
    assert after["outcomes"] == before["outcomes"]
    assert after_in_process == after, "a digest is of the file as it is now"


@pytest.mark.parametrize("use", ["a value", "a cache"])
def test_a_value_of_the_former_content_makes_nothing(use: str, loaded: Callable[..., ModuleType], tmp_path: Path):
    module = loaded(USES[use])
    with reads.guarded("a_product"):
        module.features()
    (tmp_path / "lead.txt").write_text("45", encoding="utf-8")
    with pytest.raises(reads.UndigestedRead, match=r"lead.txt has changed .* reload"), reads.guarded("a_product"):
        module.features()


def test_a_digest_does_not_depend_on_where_the_project_lies(
    loaded: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {use: stages(loaded(text))["features"] for use, text in USES.items() if "module" not in use}
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "lead.txt").write_text("30", encoding="utf-8")
    monkeypatch.syspath_prepend(str(other))
    for use, digest in before.items():
        (other / "a_product.py").write_text(IMPORT + USES[use], encoding="utf-8")
        sys.modules.pop("a_product", None)
        forget()
        assert stages(importlib.import_module("a_product"))["features"] == digest, use


@pytest.mark.parametrize("name", ["", ".", "..", "../lead.txt", "/etc/hostname", ".hidden", "gone.txt", "folder", 7])
def test_a_name_outside_of_the_folder_or_of_no_file_is_refused(name: object, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    program = compile(f"{IMPORT}data_file({name!r})", str(tmp_path / "a_product.py"), "exec")
    (tmp_path / "a_product.py").write_text(f"{IMPORT}data_file({name!r})", encoding="utf-8")
    with pytest.raises(DataFileProblem, match="data_file"):
        exec(program, {"__name__": "a_product", "__file__": str(tmp_path / "a_product.py")})


def test_a_link_out_of_the_folder_is_refused(loaded: Callable[..., ModuleType], tmp_path: Path) -> None:
    (tmp_path / "linked.txt").symlink_to("/etc/hostname")
    with pytest.raises(DataFileProblem, match=r"leads to /etc/hostname; expected a file in"):
        loaded("LEAD = data_file('linked.txt')\n")


@pytest.mark.parametrize(
    "text",
    ["NAME = 'lead.txt'\nLEAD = data_file(NAME)\n", "read = data_file\nLEAD = read('lead.txt')\n"],
    ids=["a name", "an alias"],
)
def test_a_call_that_does_not_name_its_file_is_refused(text: str, loaded: Callable[..., ModuleType]) -> None:
    with pytest.raises(DataFileProblem, match=r"write the name of the file out"):
        loaded(text)


def test_a_step_with_another_data_file_refuses_by_name(loaded: Callable[..., ModuleType], tmp_path: Path) -> None:
    maker = Building.for_product(replace(SPEC, features=loaded(USES["a call"]).features))
    extras: Any = instructions.to_extras(ExportJob(product=SPEC.name, module=SPEC.module, checkpoint=""), maker)
    instructions.check_maker(extras, maker)
    (tmp_path / "lead.txt").write_text("45", encoding="utf-8")
    with pytest.raises(instructions.OtherCode, match=r"different or missing here: lead.txt\."):
        instructions.check_maker(extras, maker)
    (tmp_path / "lead.txt").unlink()
    with pytest.raises(instructions.OtherCode, match=r"there is no file .*lead.txt"):
        instructions.check_maker(extras, maker)


@pytest.mark.costly
def test_a_run_makes_features_again_after_a_change_and_refuses_other_reads(
    loaded: Callable[..., ModuleType], tmp_path: Path, settings: Settings
) -> None:
    text = (
        "import polars as pl\nfrom tests.doubles import numbered_batches\n\n"
        "def features(tables, window):\n    lead = float(data_file('lead.txt').read_text())\n"
        "    return numbered_batches.SPEC.features(tables, window).with_columns(reading=pl.lit(lead))\n"
    )

    def run(text: str) -> TableStore:
        spec = replace(numbered_batches.SPEC, features=loaded(text).features)
        assets = built(spec, raw, validated, features, outside=ALONE)
        store = StoreResource(variables=settings.to_environment())
        defs = dg.Definitions(assets=assets, resources={"driftline_store": store}, executor=dg.in_process_executor)
        tags = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0001"}
        defs.resolve_implicit_global_asset_job_def().execute_in_process(tags=tags)
        return TableStore(settings.root, spec.name)

    numbered_batches.land_all(settings.root, "0001", "0001")
    stages = ("features", "validated_readings", "raw_readings")
    before = {stage: run(text).records(stage)["0001"].code_digest for stage in stages}
    (tmp_path / "lead.txt").write_text("45", encoding="utf-8")
    after = {stage: run(text).records(stage)["0001"].code_digest for stage in stages}
    assert [stage for stage in stages if before[stage] != after[stage]] == ["features"]
    assert set(run(text).read("features", ["0001"])["reading"]) == {45.0}
    (tmp_path / "lead.csv").write_text("a", encoding="utf-8")
    with pytest.raises(reads.UndigestedRead, match=r"features\(\) reads .*lead.csv.*data_file"):
        run(text.replace("    lead =", f"    pl.read_csv({str(tmp_path / 'lead.csv')!r})\n    lead ="))


@pytest.mark.costly
def test_check_lists_data_files_and_refuses_other_reads(loaded: Callable[..., ModuleType], tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("1", encoding="utf-8")
    text = (
        "from tests.doubles.products.hourly_temperature import features as build\n"
        "LEAD = int(data_file('lead.txt').read_text())\n\ndef features(tables, window):\n    assert LEAD == 30\n"
        "    return build(tables, window)\n"
    )
    lines = {line.check: line for line in of_product(replace(SPEC, features=loaded(text).features))}
    assert lines["data files"].message == "lead.txt (2 bytes) counts in features()"
    assert lines["features"].state == "ok"
    text = text.replace("    assert", "    open(__file__.replace('a_product.py', 'other.txt'))\n    assert")
    lines = {line.check: line for line in of_product(replace(SPEC, features=loaded(text).features))}
    assert lines["features"].is_problem
    assert 'data_file("other.txt")' in lines["features"].message
    assert not [line for line in of_product(SPEC) if line.check == "data files"]
