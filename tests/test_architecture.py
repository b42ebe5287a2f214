"""Import directions, the cost of loading the definitions, and the places that may name a product."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
import yaml

from platform_assets.engine import product_files
from tests.doubles import recorded

pytestmark = pytest.mark.slow

PACKAGES = ("platform_assets", "resources", "sensors")
BIN = Path(sys.executable).parent
TIMELESS = (
    *("platform_assets/product", "platform_assets/products", "platform_assets/engine", "platform_assets/data"),
    *("platform_assets/evaluation", "platform_assets/monitoring", "platform_assets/prediction_log"),
    *("platform_assets/operations/views", "platform_assets/automation", "sensors"),
    *("platform_assets/alerts", "platform_assets/jobs", "platform_assets/sensors"),
)
NOW = {"now", "utcnow", "today", "time", "time_ns"}


def modules(repository: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the path below the repository and the syntax tree of every module of our packages."""
    for folder in folders or PACKAGES:
        for path in sorted((repository / folder).rglob("*.py")):
            yield str(path.relative_to(repository)), parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def pyproject(repository: Path) -> dict[str, object]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]


def run(*command: str, cwd: Path) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


MOST_SEAMS = 25
LEDGERS = "platform_assets.store.ledgers"
WRITERS = ("store", "launch", "serving.follow", "training.steps")
"""Rooms that read or write ledgers themselves: storage, the service, and what steps and launchers wrote."""
OUTSIDE_OF_MAKERS = (
    *("dagster", "matplotlib", "platform_assets.base.clock", "platform_assets.base.settings"),
    *(f"platform_assets.engine.{name}" for name in ("cutoffs", "digests", "ranges", "stage")),
    *("platform_assets.launch", "platform_assets.operations", "platform_assets.products"),
    *("platform_assets.store.product_store", "platform_assets.training.steps"),
)


@cache
def graph(*, with_types: bool = False) -> grimp.ImportGraph:
    roots = ("driftline", *PACKAGES)
    return grimp.build_graph(
        *roots, include_external_packages=True, exclude_type_checking_imports=not with_types, cache_dir=None
    )


def test_every_module_is_in_a_room_of_the_contracts(repository: Path) -> None:
    there = {path.stem for path in (repository / "platform_assets").iterdir() if not path.stem.startswith("__")}
    layers, _, around, *_ = pyproject(repository)["importlinter"]["contracts"]
    assert {f"platform_assets.{name}" for name in there} | {"resources", "sensors"} == {
        room for layer in layers["layers"] for room in re.split(r" [:|] ", layer)
    }
    assert layers["layers"][3].split(" : ") == sorted(around["modules"])
    assert len(around["ignore_imports"]) <= MOST_SEAMS


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not for types either: a type that two modules need is defined below both. Products alone import the door."""
    imports = graph(with_types=True)
    TopologicalSorter({name: imports.find_modules_directly_imported_by(name) for name in imports.modules}).prepare()
    assert all(
        module.startswith("platform_assets.products.")
        for module in imports.find_modules_that_directly_import("driftline")
    )


def test_makers_reach_only_what_a_result_depends_on() -> None:
    makers = {module for module in graph().modules if module.endswith("_maker")}
    assert len(makers) > 5
    reached = makers.union(*(graph().find_upstream_modules(maker) for maker in makers))
    outside = [module for module in reached if any(f"{module}.".startswith(f"{name}.") for name in OUTSIDE_OF_MAKERS)]
    assert outside == []


def test_history_is_the_one_reader_of_ledgers() -> None:
    readers = graph().find_modules_that_directly_import(LEDGERS)
    rooms = tuple(f"platform_assets.{room}." for room in WRITERS)
    assert [module for module in readers if not module.startswith(rooms)] == []


@pytest.mark.costly
def test_training_and_serving_processes_load_no_dagster(repository: Path) -> None:
    for folder in ("training/steps", "serving/answer", "serving/follow", "serving/log", "serving/run", "store"):
        names = [
            f"platform_assets.{folder.replace('/', '.')}.{path.stem}"
            for path in sorted((repository / "platform_assets" / folder).glob("*.py"))
            if path.stem not in ("__init__", "__main__")
        ]
        forbidden = ["dagster", *(["torch", "polars", "pandera", "deltalake"] if "serving" in folder else [])]
        code = (
            f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
            f"print([name for name in {forbidden!r} if name in sys.modules])"
        )
        assert run(sys.executable, "-c", code, cwd=repository).splitlines()[-1] == "[]", folder


def test_the_three_ways_of_loading_name_one_module(repository: Path) -> None:
    tool = pyproject(repository)
    (entry,) = yaml.safe_load((repository / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    dagster, project = tool["dagster"], tool["dg"]["project"]
    assert (
        (dagster["module_name"], dagster["code_location_name"])
        == (project["code_location_target_module"], project["code_location_name"])
        == (entry["python_module"]["module_name"], entry["python_module"]["location_name"])
    )


def test_nothing_outside_of_specs_names_a_product(repository: Path) -> None:
    """Neither code nor comment nor docstring: an example that names a product soon goes stale."""
    names = re.compile(rf"(?<![a-z])({'|'.join(sorted(_names_of_products()))})s?(?![a-z])", re.IGNORECASE)
    lines_with_names = []
    for path in sorted(path for folder in (*PACKAGES, "deploy") for path in (repository / folder).rglob("*")):
        name = path.relative_to(repository)
        is_text = path.suffix and "__pycache__" not in path.parts
        if is_text and not name.is_relative_to("platform_assets/products"):
            numbered = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
            lines_with_names += [
                f"{name}, line {number}: {line.strip()}" for number, line in numbered if names.search(line)
            ]
    assert lines_with_names == [], "product-specific text belongs in the product's file in products/"


def _names_of_products() -> set[str]:
    """Return the full names of products in the singular, as in code and in prose; parts of a name do not count."""
    names = [spec.name.removesuffix("s") for spec in product_files.load_all()]
    return {*names, *(name.replace("_", " ") for name in names)}


def test_only_the_full_name_of_a_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = replace(recorded.SPEC, name="customer_orders", entity="order")
    monkeypatch.setattr(product_files, "load_all", lambda: (orders,))
    assert _names_of_products() == {"customer_order", "customer order"}


@pytest.mark.costly
def test_only_settings_reads_the_environment(repository: Path) -> None:
    """Except for the variables that clients of S3 read themselves: a client is used again while they are the same."""
    for path, tree in modules(repository):
        if path in ("platform_assets/base/settings.py", "platform_assets/store/objects.py"):
            continue
        nodes = list(ast.walk(tree))
        written = {
            id(node.value) for node in nodes if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
        }
        reads = [
            node.lineno
            for node in nodes
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and id(node) not in written
        ]
        assert not reads, f"{path}, lines {reads}: read the environment in platform_assets/base/settings.py"


def test_pure_code_and_wiring_never_read_the_time(repository: Path) -> None:
    for path, tree in modules(repository, *TIMELESS):
        clock_reads = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in NOW
            and ast.unparse(node.func.value) in ("datetime", "datetime.datetime", "date", "datetime.date", "time", "dt")
        ]
        assert not clock_reads, f"{path}, lines {clock_reads}: only platform_assets/base/clock.py reads the time"


@pytest.mark.costly
def test_a_checkout_elsewhere_is_not_needed_to_import(repository: Path, tmp_path: Path) -> None:
    code = "import platform_assets, resources, sensors; print(platform_assets.__file__)"
    output = run(sys.executable, "-c", code, cwd=tmp_path).strip()
    assert Path(os.path.realpath(output)).is_relative_to(repository), "run `make setup`: the checkout is not installed"


def test_records_are_read_by_their_types_and_not_by_literal_keys(repository: Path) -> None:
    reads = [
        f"{path}:{node.lineno}"
        for path, tree in modules(repository)
        if not path.startswith("platform_assets/store/records/")
        for node in ast.walk(tree)
        for value, key in [_literal_read(node)]
        if key is not None and value.endswith((".notes", ".document()"))
    ]
    assert reads == [], "read them through platform_assets.store.records"


def _literal_read(node: ast.AST) -> tuple[str, str | None]:
    """Return what a node reads and its literal key; no key for any other node."""
    match node:
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key)), ctx=ast.Load()):
            return ast.unparse(value), key
        case ast.Call(func=ast.Attribute(value=value, attr="get"), args=[ast.Constant(value=str(key)), *_]):
            return ast.unparse(value), key
    return "", None
