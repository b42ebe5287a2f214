"""What CONTRIBUTING.md promises, as tests whose messages say which file to mend."""

from __future__ import annotations

import ast
import builtins
import graphlib
import re
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

from platform_assets import specs
from platform_assets.digests import modules

PACKAGES = ("platform_assets", "resources", "sensors")
REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted(path for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
MAX_LINES = 300
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
IMPORTED_BY_TICKS = {"obstore", "deltalake", "kubernetes"}
"""Libraries that a sensor's tick may be the first in its process to need."""
NO_CALLS = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
CARRIES = {
    "platform_assets/placeholders.py": "what a product's values raise is told in its asset, or raised with the others",
    "platform_assets/serving/beside.py": "what a job raises in its thread is raised again in its caller's",
}
"""Where an exception of any kind is caught and not raised on the spot: path -> reason."""
UNLISTED = {"__pycache__", ".git", ".venv", ".driftline", "shared", "build", "dist"}
RUN_BY_CI = "<!-- run by .ci/run -->"
RUN_BY_A_TEST = "<!-- run by tests/test_one_file.py -->"
EXECUTED_ELSEWHERE = {
    "make": "make setup",
    "make demo": "make demo EXIT=1",
    "make demo PRODUCT=garment_photos": "make demo EXIT=1 PRODUCT=garment_photos",
    "make test": "make test",
    "make lint": "make lint",
    "make typecheck": "make typecheck",
    "make validate": "make validate",
}
"""Commands of the documentation that .ci/run executes in other words: command -> words in .ci/run."""


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_modules_are_short_or_say_why_not(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    reason = re.search(r"over 300 lines because", ast.get_docstring(tree(path)) or "")
    assert lines <= MAX_LINES or reason, (
        f"{shown(path)} has {lines} lines: split it, or write 'over 300 lines because ...' in its docstring"
    )


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_modules_and_public_names_have_docstrings(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), f"{shown(path)} does not say what belongs there"
    missing = [name for name, node in _public(module) if not ast.get_docstring(node)]
    assert not missing, f"{shown(path)}: no docstring on {', '.join(missing)}"


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=shown)
def test_names_of_modules_say_what_is_inside(path: Path) -> None:
    assert path.stem not in NO_NAMES, f"{shown(path)}: name the module after what it holds"
    assert not (path.name == "__init__.py" and path.is_relative_to(REPOSITORY / "tests")), (
        f"remove {shown(path)}: a package below tests/ shadows the real one"
    )


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_what_ticks_import_late_is_imported_whole(path: Path) -> None:
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    parts = {
        f"line {node.lineno}: {ast.unparse(node)}"
        for function in functions
        for node in ast.walk(function)
        for name in _imported(node)
        if name.partition(".")[0] in IMPORTED_BY_TICKS and "." in name
    }
    assert not parts, (
        f"{shown(path)}, {'; '.join(sorted(parts))}: import the package, and name its part from there. Sensors tick in "
        "threads; one that imports a part while another one imports its package may leave both half loaded for good"
    )


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=shown)
def test_nothing_is_pickled(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.save", "torch.load"):
            names = {"pickle"}
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            names = {"pickle"} if not (isinstance(node.value, ast.Constant) and node.value.value is False) else set()
        else:
            continue
        assert not names & NO_CALLS, f"{shown(path)}, line {node.lineno}: use safetensors, JSON, Arrow or ONNX"


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_no_exception_is_swallowed(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            is_broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not is_broad or raises or shown(path) in CARRIES, (
                f"{shown(path)}, line {node.lineno}: catch what you expect, by name"
            )


def test_skipped_tests_are_listed_in_contributing() -> None:
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in TESTS:
        for node in ast.walk(tree(path)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.importorskip"):
                assert shown(path) in contributing, (
                    f"{shown(path)} skips a test: list it, with the reason, in CONTRIBUTING.md"
                )


def test_every_asset_is_described() -> None:
    from platform_assets.definitions import defs

    found = list(defs.resolve_all_asset_specs())
    assert found
    for spec in found:
        name = spec.key.to_user_string()
        for what in ("owners", "group_name", "kinds", "description", "code_version"):
            assert getattr(spec, what), f"{name} has no {what}: see platform_assets/engine/stage.py"
        assert spec.group_name != "default", f"{name} is in the default group"
        assert len(spec.kinds) <= 3, f"{name} has kinds {sorted(spec.kinds)}; at most three, technologies only"
        assert len(spec.description or "") >= 40, f"{name}: its description is its catalog page"


def test_every_asset_body_says_that_it_reports_and_returns_no_value() -> None:
    import dagster as dg

    from platform_assets.definitions import defs

    for asset in defs.assets or []:
        returns = typing.get_type_hints(asset.op.compute_fn.decorated_fn).get("return")
        if typing.get_origin(returns) is Iterator:
            (returns,) = typing.get_args(returns)
        assert (typing.get_origin(returns) or returns) is dg.MaterializeResult, (
            f"{asset.keys}: annotate the body `-> dg.MaterializeResult` or an Iterator of it, not {returns}; "
            "anything else falls back to an IO manager that pickles"
        )


def test_asset_keys_are_the_reviewed_ones() -> None:
    from platform_assets.definitions import defs

    snapshot = REPOSITORY / "tests" / "asset_keys.txt"
    found = sorted(spec.key.to_user_string() for spec in defs.resolve_all_asset_specs())
    assert found == snapshot.read_text(encoding="utf-8").split(), (
        "assets appeared or vanished; if that is meant, mend tests/asset_keys.txt"
    )


def test_the_tree_in_the_readme_matches_the_tree() -> None:
    listed = dict(_readme_tree())
    for folder, names in listed.items():
        place = REPOSITORY / folder
        there = {path.name + ("/" if path.is_dir() else "") for path in place.iterdir() if _is_listed(path)}
        assert names == there, (
            f"README.md's tree of {folder or 'the top folder'}: missing {sorted(there - names)}, "
            f"not there {sorted(names - there)}"
        )
    assert {"", "platform_assets/"} <= set(listed), "README.md opens neither the top folder nor platform_assets/"


def test_every_command_of_the_documentation_is_executed() -> None:
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    for path in DOCUMENTS:
        is_walk_through = path.name == "add_a_product.md"
        for command in _unmarked_commands(path.read_text(encoding="utf-8"), is_walk_through=is_walk_through):
            words = EXECUTED_ELSEWHERE.get(command)
            assert words is not None, (
                f"{shown(path)} shows `{command}`, which nothing executes: write {RUN_BY_CI} above its block, "
                "or list it in tests/test_conventions.py"
            )
            assert words in ci, f".ci/run does not hold {words!r} any more, which {shown(path)} relies on"


def test_links_of_the_documentation_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{shown(path)} links to {target}, which is not there"


def test_every_dependency_has_its_reason() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in [*project["dependencies"], *chain(*project["optional-dependencies"].values())]:
        name = re.match(r"[A-Za-z0-9_-]+", requirement)
        assert name is not None
        assert f"| `{name[0]}` |" in text, f"docs/architecture.md gives no reason for the dependency {name[0]}"


def test_versions_are_pinned_and_torch_is_not() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", pin) for pin in pins), (
        "constraints.txt: only pins, no `+local`"
    )
    names = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in [*project["dependencies"], *chain(*project["optional-dependencies"].values())]:
        name = re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;\s]", requirement)[0]).lower()
        assert (name in names) != (name == "torch"), f"{name}: run `make lock` (torch keeps its range)"


def test_the_trainer_image_holds_what_steps_and_products_import_and_no_dagster() -> None:
    group = _trainer()
    steps = [f"platform_assets.steps.{path.stem}" for path in (REPOSITORY / "platform_assets/steps").glob("*.py")]
    products = [f"platform_assets.specs.{name}" for name in specs.names()]
    files = [REPOSITORY / f"{name.replace('.', '/')}.py" for name in modules.closure(*products, *steps[1:])]
    nodes = [node for path in files if path.exists() for node in ast.walk(tree(path))]
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0]: found for name, found in metadata.packages_distributions().items()}
    needed = {packages[name][0] for name in imported - sys.stdlib_module_names - {"platform_assets"}}
    assert needed <= set(group), "mend [dependency-groups] trainer in pyproject.toml"
    assert not [name for name in group if name.startswith("dagster") and name != "dagster-pipes"]


def test_the_trainer_image_has_the_versions_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, requirement in _trainer().items():
        assert requirement in project["dependencies"], f"pyproject.toml: {requirement} differs"
        pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
        assert name == "torch" or re.search(rf"^{name}==", pins, re.MULTILINE | re.IGNORECASE), f"{name} has no pin"


def _trainer() -> dict[str, str]:
    """Return the requirements of the trainer image by name."""
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    return {re.split(r"[\[<>=;\s]", requirement)[0]: requirement for requirement in groups["trainer"]}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for type checking alone do not count; those of functions do."""
    names = {path: shown(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in MODULES}
    graph = {}
    for path, name in names.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        _, imported = modules.content([tree(path)], package)
        graph[name] = {each for each in imported if each in names.values() and each != name}
    # A package that a name is taken from is no circle with that name's module, which it may re-export.
    graph = {
        name: {each for each in of if not any(other.startswith(f"{each}.") for other in of)}
        for name, of in graph.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_make_without_a_target_prints_every_target() -> None:
    ended = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    targets = re.search(r"\.PHONY: (.*)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^  {target} ", ended.stdout, re.MULTILINE), f"Makefile: {target} has no `## text`"


def _public(node: ast.AST, prefix: str = "", inherits: bool = False) -> Iterator[tuple[str, ast.AST]]:
    """Yield public classes, functions and methods; a method of a subclass inherits its base's docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if not (inherits and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
                yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{prefix}{child.name}.", bool(child.bases))


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module


def _is_listed(path: Path) -> bool:
    return path.name not in UNLISTED and not path.name.endswith((".egg-info", "_cache")) and path.name != ".hypothesis"


def _readme_tree() -> Iterator[tuple[str, set[str]]]:
    """Yield every folder that the README's tree opens, with the names it lists there."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text tree\n(.*?)```", text, re.DOTALL)
    assert block is not None, "README.md has no block ```text tree"
    found: dict[str, set[str]] = {"": set()}
    path: list[str] = []
    for line in block[1].splitlines():
        entry = re.match(r"((?:  )*)(\S+)", line)
        assert entry is not None, f"README.md's tree: {line!r} names nothing"
        path[len(entry[1]) // 2 :] = [entry[2]]
        found.setdefault("".join(path[:-1]), set()).add(entry[2])
    yield from found.items()


def _unmarked_commands(text: str, *, is_walk_through: bool) -> Iterator[str]:
    """Yield the commands of bash blocks that neither .ci/run nor the test of the walk-through runs as they stand."""
    for marker, block in re.findall(r"(?:^(<!-- .*? -->)\n)?^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if marker != RUN_BY_CI and not (marker == RUN_BY_A_TEST and is_walk_through):
            yield from (line.split("  #")[0].strip() for line in block.splitlines() if line.strip() and line[0] != "#")


def test_pip_knows_the_options_with_which_make_calls_it() -> None:
    """`--help` after an option that pip does not know in that place is an error, and installs nothing otherwise."""
    lines = (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines()
    options = next(line for line in lines if line.startswith("PIP :=")).partition("-m pip ")[2].split()
    commands = [line.partition("$(PIP) ")[2].partition("|")[0].split() for line in lines if "@$(PIP) " in line]
    assert len(commands) == 2
    for command in commands:
        told = [sys.executable, "-m", "pip", *options, *command, "--help"]
        ended = subprocess.run(told, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_exceptions_of_ours_have_one_root(path: Path) -> None:
    """A private one that never leaves its module may stand alone, and one that is no error but a request to stop."""
    builtin = {name for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, Exception)}
    alone = [
        node.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and node.bases
        and all(isinstance(base, ast.Name) and base.id in builtin for base in node.bases)
    ]
    assert alone == ["Problem"] * (shown(path) == "platform_assets/problems.py"), (
        f"{alone} of {shown(path)} are no `platform_assets.problems.Problem`"
    )


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_records_are_read_and_written_as_structs(path: Path) -> None:
    """Only whether a record is there may be asked of a ledger by its name; the file of costs is no record."""
    calls = re.findall(
        r"\.(?:read|latest|at|newest|each|append|create|create_number)\(\s*naming\.([A-Z_]+)\b(.*)",
        path.read_text(encoding="utf-8"),
    )
    untyped = [name for name, rest in calls if name != "COST" and not re.search(r"\) is (?:not )?None", rest)]
    assert untyped == [], f"{shown(path)} takes {untyped} as dicts; use ledgers.of(KIND)"
