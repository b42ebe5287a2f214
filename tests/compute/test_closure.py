"""Code digests: what a stage runs and nothing else, from source, wherever the checkout lies."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platform_assets.compute import closure

REPOSITORY = Path(__file__).resolve().parents[2]
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules of a package that counts as ours for this test."""
    package = f"closure_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(closure, "PACKAGES", (package,))

    def write(name: str, text: str) -> None:
        (tmp_path / package / f"{name}.py").write_text(text.replace("PACKAGE", package))
        for cached in (closure._closure, closure._imports, closure._path):
            cached.cache_clear()

    write.package = package
    yield write
    for cached in (closure._closure, closure._imports, closure._path):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def names(write: Write, *modules: str) -> list[str]:
    return [f"{write.package}.{module}" for module in modules]


def test_imports_count_wherever_they_stand(write: Write) -> None:
    write("bottom", "")
    write("lazy", "")
    write("unrelated", "")
    write("middle", "import os\nfrom PACKAGE import bottom\n")
    write("top", "from PACKAGE.middle import os\n\ndef f():\n    import PACKAGE.lazy\n")
    found = closure.closure(*names(write, "top"))
    assert set(names(write, "top", "middle", "bottom", "lazy")) <= set(found)
    assert names(write, "unrelated")[0] not in found
    assert "os" not in found


def test_circles_end(write: Write) -> None:
    write("one", "import PACKAGE.two\n")
    write("two", "import PACKAGE.one\n")
    assert set(names(write, "one", "two")) <= set(closure.closure(*names(write, "one")))


def test_a_change_below_changes_the_digest_and_one_beside_does_not(write: Write) -> None:
    write("bottom", "X = 1\n")
    write("beside", "X = 1\n")
    write("top", "from PACKAGE import bottom\n")
    (top,) = names(write, "top")
    before = closure.code_digest(top)
    write("beside", "X = 2\n")
    assert closure.code_digest(top) == before
    write("bottom", "X = 2\n")
    assert closure.code_digest(top) != before


def test_the_digest_does_not_depend_on_order_or_repetition(write: Write) -> None:
    write("one", "X = 1\n")
    write("two", "X = 2\n")
    one, two = names(write, "one", "two")
    assert closure.code_digest(one, two) == closure.code_digest(two, one, two)
    assert closure.code_digest(one) != closure.code_digest(two)


def test_an_unknown_module_is_named(write: Write) -> None:
    write("one", "")
    (missing,) = names(write, "missing")
    with pytest.raises(ValueError, match=missing):
        closure.code_digest(missing)


def test_our_own_modules_are_covered() -> None:
    found = closure.closure("platform_assets.clock")
    assert found == ("platform_assets.clock", "platform_assets.settings")


def test_no_import_is_overlooked() -> None:
    """The quick search for imports finds at least what the syntax tree of every module of ours holds."""
    for package in closure.PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            overlooked = imports_of(ast.parse(path.read_text(encoding="utf-8"))) - closure._imports(name)
            assert not overlooked, f"{name}: write these imports one a line: {sorted(overlooked)}"


def imports_of(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] in closure.PACKAGES and closure._path(name) is not None}


def test_a_source_digest_covers_exactly_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = closure.source_digest("platform_assets.compute.nets")
    source = closure._source
    monkeypatch.setattr(closure, "_source", lambda name: source(name) + b"#" * name.endswith("compute.learn"))
    assert closure.source_digest("platform_assets.compute.nets") == before
    assert closure.source_digest("platform_assets.compute.learn") != before
