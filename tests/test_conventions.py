"""Conventions that protect, as tests whose messages name every file to fix. Those of taste: `make taste`."""

import ast
import builtins
import functools
import re
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

from platform_assets.engine import product_files
from platform_assets.engine.digests import modules

PACKAGES = ("platform_assets", "resources", "sensors")
REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted(path for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py"))
TESTS = sorted(path for folder in ("tests", "proof") for path in (REPOSITORY / folder).rglob("*.py"))
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
IMPORTED_BY_TICKS = {"obstore", "deltalake", "kubernetes"}
"""Libraries that a sensor's tick may be the first in its process to import."""
NO_CALLS = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
OF_OBJECTS = re.compile(r"(all_)?gather_object|(broadcast|scatter|send|recv)_object_list")
"""Functions of torch.distributed that pickle what they send."""
CARRIES = {
    "platform_assets/automation/placeholders.py": "errors in a product's values are shown in its asset, or raised",
    "platform_assets/serving/follow/background.py": "what a job raises in its thread is raised again in its caller's",
    "platform_assets/serving/run/service.py": "whatever fails in a service's start is printed, and its process ends",
    "platform_assets/serving/answer/slices_of_work.py": "what fails for the requests of one turn is raised by each",
    "platform_assets/operations/exporter/parts.py": "a part that fails is served as a number, and logged",
    "platform_assets/data/source_calls.py": "what a source raises is raised in the tick that asked it",
}
"""Files that catch any exception without raising at once: path -> reason."""
PRIVATE = re.compile(r"\b(?:dagster\w*|bentoml)\._[a-z]|\b_bentoml")
PRIVATE_IN = {
    "platform_assets/engine/key_checks.py",
    "platform_assets/instance/cluster_run.py",
    "platform_assets/instance/cluster_storage.py",
    "platform_assets/instance/copying_launcher.py",
    "platform_assets/instance/local_storage.py",
    "platform_assets/instance/own_runs.py",
    "platform_assets/instance/run_launcher.py",
}
RUN_BY_CI = "<!-- run by .ci/run -->"
OURS = ("driftline", "platform_assets", "proof", "resources", "sensors", "tests")
RUN_BY_A_TEST = "<!-- run by proof/test_one_file.py -->"
RUN_ON_A_CLUSTER = "<!-- run by tests/cluster/test_kubectl_page.py -->"
EXECUTED_ELSEWHERE = {
    "make": "make setup",
    # tests/scaffold/test_new.py
    "make setup && source .venv/bin/activate": "make setup",
    "driftline new returns --from orders.csv --time ordered_at --label returned": "README's tests",
    "driftline try returns": "README's tests",
    "make demo": "make demo",
    "make demo PRODUCT=garment_photos": "make demo PRODUCT=garment_photos",
    "make test": "make test",
    "make test-fast": "tests test-fast",
    "make lint": "make lint",
    "make typecheck": "make typecheck",
    "make validate": "make validate",
    # proof/test_real_hosts.py and tests/guest/test_hosts.py
    "pip install 'driftline[lightgbm]'": "test_real_hosts.py",
    "dg scaffold defs driftline.ProductComponent churn": "test_real_hosts.py",
    "dg check defs": "test_real_hosts.py",
    "driftline check churn": "test_real_hosts.py",
    "dg launch --job advance__churn --partition-range 2026-01-01...2026-02-28": "test_real_hosts.py",
    "dg launch --job retrain__churn --partition 2026-03-01": "test_real_hosts.py",
    "driftline status churn": "test_real_hosts.py",
    # tests/test_documents.py
    "driftline stale > head.json": "README's tests",
    "driftline stale --since base.json": "README's tests",
}
"""Commands of the documentation that .ci/run executes in another form: command -> text in .ci/run."""


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@functools.cache
def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path))


def mentioning(paths: Iterable[Path], *words: str) -> list[Path]:
    return [path for path in paths if any(word in source(path) for word in words)]


@pytest.mark.costly
def test_modules_and_public_names_have_docstrings() -> None:
    missing = [relative(path) for path in MODULES if not ast.get_docstring(tree(path))]
    missing += [
        f"{relative(path)}: {name}"
        for path in MODULES
        for name, node in _public(tree(path))
        if not ast.get_docstring(node)
    ]
    assert missing == [], "write a docstring"


def test_names_of_modules_describe_their_content() -> None:
    vague = [relative(path) for path in [*MODULES, *TESTS] if path.stem in NO_NAMES]
    assert vague == [], "name the module after its content"
    packages = [relative(path) for path in TESTS if path.name == "__init__.py"]
    assert packages == [], "remove them: a package there shadows the real one"


def test_late_imports_of_ticks_are_complete() -> None:
    parts = {
        f"{relative(path)}, line {node.lineno}: {ast.unparse(node)}"
        for path in mentioning(MODULES, *IMPORTED_BY_TICKS)
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        for name in _imported(node)
        if name.partition(".")[0] in IMPORTED_BY_TICKS and "." in name
    }
    assert sorted(parts) == [], (
        "import the package, and name its part from there. Sensors tick in threads; one that imports a part while "
        "another one imports its package may leave both half loaded for the rest of the process"
    )


def test_nothing_is_pickled() -> None:
    pickled = [
        f"{relative(path)}, line {node.lineno}"
        for path in mentioning([*MODULES, *TESTS], *NO_CALLS, "torch", "allow_pickle")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.stmt | ast.expr | ast.keyword) and _pickles(node)
    ]
    assert pickled == [], "use safetensors, JSON, Arrow or ONNX"


@pytest.mark.parametrize(
    "statement",
    [
        "dist.all_gather_object(every, own)",
        "from torch.distributed import broadcast_object_list",
        "torch.load(path)",
        "import pickle",
    ],
)
def test_what_pickles_is_seen(statement: str) -> None:
    assert any(map(_pickles, ast.walk(ast.parse(statement))))
    assert not any(map(_pickles, ast.walk(ast.parse("torch.distributed.all_gather(every, own)"))))


def _pickles(node: ast.AST) -> bool:
    """Return whether a node imports a library that pickles, or calls a pickling function of another one."""
    match node:
        case ast.Import():
            return bool({alias.name.split(".")[0] for alias in node.names} & NO_CALLS)
        case ast.ImportFrom():
            names = {alias.name for alias in node.names}
            return (node.module or "").split(".")[0] in NO_CALLS or any(map(OF_OBJECTS.fullmatch, names))
        case ast.Attribute(value=ast.Name(id="torch"), attr="save" | "load"):
            return True
        case ast.Attribute(attr=name):
            return OF_OBJECTS.fullmatch(name) is not None
        case ast.keyword(arg="allow_pickle", value=value):
            return not (isinstance(value, ast.Constant) and value.value is False)
    return False


def test_no_exception_is_swallowed() -> None:
    swallowed = [
        f"{relative(path)}, line {node.lineno}"
        for path in mentioning(MODULES, "except")
        if relative(path) not in CARRIES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert swallowed == [], "catch the expected exceptions by name"


def test_skipped_tests_are_listed_in_contributing() -> None:
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in mentioning(TESTS, "skip"):
        for node in ast.walk(tree(path)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.importorskip"):
                assert relative(path) in contributing, (
                    f"{relative(path)} skips a test: list it, with the reason, in CONTRIBUTING.md"
                )


def test_every_asset_is_described() -> None:
    from platform_assets.definitions import defs

    specs_of_assets = list(defs.resolve_all_asset_specs())
    assert specs_of_assets
    for spec in specs_of_assets:
        name = spec.key.to_user_string()
        made = () if spec.tags["driftline/stage"] == "landing" else ("code_version",)
        for attribute in ("owners", "group_name", "kinds", "description", *made):
            assert getattr(spec, attribute), f"{name} has no {attribute}: see platform_assets/engine/stage.py"
        assert spec.group_name != "default", f"{name} is in the default group"
        assert len(spec.kinds) <= 3, f"{name} has kinds {sorted(spec.kinds)}; at most three, technologies only"
        assert len(spec.description or "") >= 40, f"{name}: its description is its catalog page"


def test_every_asset_body_declares_that_it_reports_and_returns_no_value() -> None:
    import dagster as dg

    from platform_assets.definitions import defs

    for asset in (item for item in defs.assets or [] if isinstance(item, dg.AssetsDefinition)):
        returns = typing.get_type_hints(asset.op.compute_fn.decorated_fn).get("return")
        if typing.get_origin(returns) is Iterator:
            (returns,) = typing.get_args(returns)
        assert (typing.get_origin(returns) or returns) is dg.MaterializeResult, (
            f"{asset.keys}: annotate the body `-> dg.MaterializeResult` or an Iterator of it, not {returns}; "
            "anything else falls back to an IO manager that pickles"
        )


def test_asset_keys_are_reviewed() -> None:
    from platform_assets.definitions import defs

    snapshot = REPOSITORY / "tests" / "asset_keys.txt"
    keys = sorted(spec.key.to_user_string() for spec in defs.resolve_all_asset_specs())
    assert keys == snapshot.read_text(encoding="utf-8").split(), (
        "assets were added or removed; if intended, update tests/asset_keys.txt"
    )


def test_every_command_of_the_documentation_is_executed() -> None:
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    followed = {"deploy.md", "recover.md"}  # whole, by tests/cluster/test_deploy_page.py and test_recover_page.py
    for path in (path for path in DOCUMENTS if path.name not in followed):
        is_walk_through = path.name == "add_a_product.md"
        for command in _unmarked_commands(path.read_text(encoding="utf-8"), is_walk_through=is_walk_through):
            phase = EXECUTED_ELSEWHERE.get(command)
            assert phase is not None, (
                f"{relative(path)} shows `{command}`, which nothing executes: write {RUN_BY_CI} above its block, "
                "or list it in tests/test_conventions.py"
            )
            assert phase in ci, f".ci/run no longer contains {phase!r}, on which {relative(path)} relies"


def test_every_test_is_run_by_something() -> None:
    """`make proof` runs all that pytest finds by itself; what it does not find, a phase of `.ci/run` names."""
    ci, make = ((REPOSITORY / name).read_text(encoding="utf-8") for name in (".ci/run", "Makefile"))
    assert "-m 'not thorough and not costly'" in make
    assert "-m 'costly and not thorough'" in ci, "what `make test` leaves out and is not thorough"
    for path in sorted(path for folder in ("tests", "proof") for path in (REPOSITORY / folder).rglob("test_*.py")):
        name = relative(path)
        is_found = name.startswith("tests/") and not name.startswith(("tests/cluster/", "tests/images/"))
        places = (
            name,
            *(folder.as_posix() for folder in Path(name).parents if folder.name not in ("", "tests", "proof")),
        )
        is_named = any(re.search(rf"[ =\"]{re.escape(place)}[ \"\n]", ci) for place in places)
        assert is_found or is_named, f"neither make test nor .ci/run runs {name}: add it to a phase of .ci/run"


def test_links_of_the_documentation_have_targets() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            page = path.parent / name if name else path
            assert page.exists(), f"{relative(path)} links to {target}, which does not exist"
            assert not anchor or anchor in anchors(page), f"{relative(path)} links to {target}, which is not a heading"


@functools.cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_dependency_has_a_reason_above_it() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in _declared():
        name = re.match(r"[A-Za-z0-9_-]+", requirement)
        assert name is not None
        first = re.search(rf'^( *#.*\n)? *"{name[0]}[\[<>=~"]', text, re.MULTILINE)
        assert first and first[1], f"pyproject.toml gives no reason for {name[0]} where it is named first"


def test_versions_are_pinned_and_torch_is_not() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", pin) for pin in pins), (
        "constraints.txt: only pins, no `+local`"
    )
    names = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    for requirement in _declared():
        name = re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;\s]", requirement)[0]).lower()
        assert (name in names) != (name == "torch"), f"{name}: run `make lock` (torch keeps its range)"


def test_the_trainer_image_has_the_imports_of_steps_and_products_and_no_dagster() -> None:
    group = _trainer()
    steps = [
        f"platform_assets.training.steps.{path.stem}"
        for path in (REPOSITORY / "platform_assets/training/steps").glob("*.py")
    ]
    products = [f"platform_assets.products.{name}" for name in product_files.names()]
    files = [REPOSITORY / f"{name.replace('.', '/')}.py" for name in modules.closure(*products, *steps[1:])]
    nodes = [node for path in files if path.exists() for node in ast.walk(tree(path))]
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0]: distributions for name, distributions in metadata.packages_distributions().items()}
    needed = {packages[name][0] for name in imported - sys.stdlib_module_names - {"driftline", "platform_assets"}}
    assert needed <= set(group), "fix [dependency-groups] trainer in pyproject.toml"
    assert not [name for name in group if name.startswith("dagster") and name != "dagster-pipes"]


def test_the_trainer_image_has_the_versions_of_the_project() -> None:
    for name, requirement in _trainer().items():
        assert requirement in _declared(), f"pyproject.toml: {requirement} differs"
        pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
        assert name == "torch" or re.search(rf"^{name}==", pins, re.MULTILINE | re.IGNORECASE), f"{name} has no pin"


def _declared() -> list[str]:
    """Return the requirements of the project and of its extras, without the extras that extras name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    return [line for line in lines if not line.startswith("driftline[")]


def _trainer() -> dict[str, str]:
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    return {re.split(r"[\[<>=;\s]", requirement)[0]: requirement for requirement in groups["trainer"]}


def test_private_modules_of_others_are_used_in_seven_files() -> None:
    """Each names its issue, the versions that it was tested with, and the setting that turns it off."""
    private = {relative(path) for path in MODULES if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert private == PRIVATE_IN, "import from the public module, or do without"


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
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module


def _unmarked_commands(text: str, *, is_walk_through: bool) -> Iterator[str]:
    """Yield the commands of bash blocks that neither .ci/run nor a test runs as they are."""
    for marker, block in re.findall(r"(?:^(<!-- .*? -->)\n)?^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if marker not in (RUN_BY_CI, RUN_ON_A_CLUSTER) and not (marker == RUN_BY_A_TEST and is_walk_through):
            yield from (line.split("  #")[0].strip() for line in block.splitlines() if line.strip() and line[0] != "#")


@pytest.mark.costly
def test_pip_knows_the_options_used_by_make() -> None:
    """`--help` after an option that pip does not know there is an error; otherwise it installs nothing."""
    lines = (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines()
    options = next(line for line in lines if line.startswith("PIP :=")).partition("-m pip ")[2].split()
    commands = [line.partition("$(PIP) ")[2].partition("|")[0].split() for line in lines if "@$(PIP) " in line]
    assert len(commands) == 2
    for command in commands:
        arguments = [sys.executable, "-m", "pip", *options, *command, "--help"]
        ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


def test_our_exceptions_have_one_root() -> None:
    """Except for private ones that never leave their module, and one that is a request to stop."""
    builtin = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    alone = [
        f"{relative(path)}: {node.name}"
        for path in mentioning(MODULES, "class ")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and node.bases
        and all(isinstance(base, ast.Name) and base.id in builtin for base in node.bases)
    ]
    assert alone == ["platform_assets/base/problems.py: Problem"], (
        "derive it from `platform_assets.base.problems.Problem`"
    )


def test_records_are_read_and_written_as_structs() -> None:
    """A ledger may be opened by its name only to test whether a record exists; the file of costs is not a record."""
    call = r"\.(?:read|latest|at|newest|each|append|create|create_number)\(\s*naming\.([A-Z_]+)\b(.*)"
    untyped = [
        f"{relative(path)}: {name}"
        for path in MODULES
        for name, following in re.findall(call, path.read_text(encoding="utf-8"))
        if name != "COST" and not re.search(r"\) is (?:not )?None", following)
    ]
    assert untyped == [], "these are dicts; use ledgers.of(KIND)"


@pytest.mark.costly
def test_what_tests_and_proofs_import_exists() -> None:
    """Proofs and most tests on a cluster run once a week: nothing else would notice that a name has moved."""
    gone = [
        f"{relative(path)}, line {node.lineno}: {node.module}.{name.name}"
        for path in TESTS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS
        for name in node.names
        if not _has(str(node.module), name.name)
    ]
    assert gone == [], "import what is there"


def _has(module: str, name: str) -> bool:
    """Tell whether a module has a name, or a package a module of it, without importing them."""
    place = REPOSITORY.joinpath(*module.split("."))
    file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    is_module = (place / name).is_dir() or (place / f"{name}.py").is_file()
    return is_module or module == "driftline" or (file.is_file() and name in _bound(file))


@functools.cache
def _bound(file: Path) -> set[str]:
    names = set[str]()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names
