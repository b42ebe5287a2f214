"""Module digests: the code that a module runs and nothing else, from source, wherever the checkout is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from platform_assets.engine import digests
from platform_assets.engine.digests import definitions, modules

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules of a package that is treated as our own for this test."""
    package = f"closure_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        (tmp_path / package / f"{name}.py").write_text(text.replace("PACKAGE", package))
        forget()

    write.package = package
    yield write
    forget()
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def forget() -> None:
    for cached in (modules._read, modules.closure, modules.path_of, definitions.closure, definitions._definition):
        cached.cache_clear()


def names(write: Write, *modules: str) -> list[str]:
    return [f"{write.package}.{module}" for module in modules]


def test_imports_count_wherever_they_are(write: Write) -> None:
    for name in ("bottom", "lazy", "near", "unrelated"):
        write(name, "")
    write("middle", "import os\nfrom PACKAGE import bottom\nfrom . import near\n")
    write("top", "from PACKAGE.middle import os\n\ndef f():\n    import PACKAGE.lazy\n")
    closure = modules.closure(*names(write, "top"))
    assert closure == tuple(sorted([write.package, *names(write, "top", "middle", "bottom", "lazy", "near")]))


def test_imports_for_type_checking_alone_do_not_count(write: Write) -> None:
    write("bottom", "")
    write("top", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from PACKAGE import bottom\n")
    assert names(write, "bottom")[0] not in modules.closure(*names(write, "top"))
    write("top", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1\nelse:\n    import PACKAGE.bottom\n")
    assert names(write, "bottom")[0] in modules.closure(*names(write, "top"))


def test_circular_imports_terminate(write: Write) -> None:
    write("one", "import PACKAGE.two\n")
    write("two", "import PACKAGE.one\n")
    assert set(names(write, "one", "two")) <= set(modules.closure(*names(write, "one")))


def test_a_change_below_changes_the_digest_and_one_elsewhere_does_not(write: Write) -> None:
    write("bottom", "X = 1\n")
    write("elsewhere", "X = 1\n")
    write("top", "from PACKAGE import bottom\n")
    (top,) = names(write, "top")
    before = modules.digests(top)
    write("elsewhere", "X = 2\n")
    assert modules.digests(top) == before
    write("bottom", "X = 2\n")
    after = modules.digests(top)
    assert [name for name in before if after[name] != before[name]] == names(write, "bottom")


CODE = """
\"\"\"What it does.\"\"\"
from dataclasses import dataclass

@dataclass
class Row:
    \"\"\"A row.\"\"\"

    size: int = 1

def area(row: Row, by: int = 2) -> int:
    \"\"\"Return it.\"\"\"
    return row.size * by
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("What it does.", "What it did.", False),
        ("A row.", "One row.", False),
        ("Return it.", "Return that.", False),
        ("    return row", "    # why\n    return row", False),
        ("row: Row, by: int = 2) -> int", "row, by = 2)", False),
        ("row.size * by", "(row.size\n        * by)", False),
        ("row.size * by", "row.size + by", True),
        ("by: int = 2", "by: int = 3", True),
        ("size: int = 1", "size: int = 2", True),
        ("size: int = 1", "size: float = 1", True),
        ("@dataclass\n", "", True),
        ("return row.size * by", "return row.size * by\n\nX = 1", True),
        ("row.size * by", "row.size * by if __debug__ else 0", True),
    ],
)
def test_code_counts_and_comments_do_not(write: Write, old: str, new: str, counts: bool) -> None:
    write("one", CODE)
    before = modules.digests(*names(write, "one"))
    assert old in CODE
    write("one", CODE.replace(old, new))
    assert (modules.digests(*names(write, "one")) != before) is counts


def test_an_unknown_module_is_named(write: Write) -> None:
    (missing,) = names(write, "missing")
    with pytest.raises(ValueError, match=missing):
        modules.digests(missing)


def test_libraries_do_not_count() -> None:
    assert not any(map(modules.is_ours, ("os", "polars", "dagster", "__main__", "sys")))
    assert modules.closure("platform_assets.base.clock") == (
        "platform_assets",
        "platform_assets.base",
        "platform_assets.base.clock",
        "platform_assets.base.configuration",
        "platform_assets.base.problems",
        "platform_assets.base.settings",
    )


SHARED = """
import os
from dataclasses import dataclass

LIMIT, OTHER = 3, 4

@dataclass
class Row:
    size: int = LIMIT

def parse(data):
    return Row(len(data))

def unrelated():
    return OTHER
"""


def definition(write: Write, name: str) -> dict[str, str]:
    return definitions.digests(f"{write.package}.{name}")


@pytest.mark.parametrize(
    "top",
    [
        "from PACKAGE.shared import parse\n\ndef run(data):\n    return parse(data)\n",
        "from PACKAGE.shared import parse as read\n\ndef run(data):\n    return read(data)\n",
        "from PACKAGE import shared\n\ndef run(data):\n    return shared.parse(data)\n",
        "from . import shared as files\n\ndef run(data):\n    return files.parse(data)\n",
        "def run(data):\n    from PACKAGE import shared\n\n    return shared.parse(data)\n",
        "import PACKAGE.shared as shared\n\ndef run(data):\n    return shared.parse(data)\n",
        "from PACKAGE import shared\n\nclass run:\n    x = shared.parse\n\n    def f(x, shared):\n        shared()\n",
    ],
    ids=["by name", "by another name", "of a module", "of a renamed module", "inside", "of an import", "in a class"],
)
def test_a_definition_counts_with_what_it_names_in_other_modules(write: Write, top: str) -> None:
    write("shared", SHARED)
    write("top", top)
    before = definition(write, "top:run")
    assert {*before} == {f"{write.package}:", f"{write.package}.top:run", f"{write.package}.shared:parse"}
    for old, new, counts in (
        ("len(data)", "len(data) + 1", True),
        ("LIMIT, OTHER = 3, 4", "LIMIT, OTHER = 2, 4", True),
        ("return OTHER", "return LIMIT", False),
    ):
        write("shared", SHARED.replace(old, new))
        assert (definition(write, "top:run") != before) is counts, old


@pytest.mark.parametrize(
    "top",
    [
        "from PACKAGE import shared\n\ndef run(data):\n    return getattr(shared, data)\n",
        "from PACKAGE import shared\n\nTABLE = {'x': shared}\n\ndef run(data):\n    return TABLE[data].parse(data)\n",
        "def run(data):\n    import PACKAGE.shared\n",
        "from PACKAGE.shared import *\n\ndef run(data):\n    return parse(data)\n",
        "from PACKAGE import shared\n\nfor _ in range(1):\n    OTHER = shared\n\ndef run(data):\n    return 0\n",
    ],
    ids=["handed on", "kept", "for its effect", "all of it", "whole file"],
)
def test_all_of_a_module_counts_where_names_do_not_show_what_is_used(write: Write, top: str) -> None:
    write("shared", SHARED)
    write("top", top)
    before = definition(write, "top:run")
    write("shared", SHARED.replace("return OTHER", "return LIMIT"))
    assert definition(write, "top:run") != before


def test_a_name_that_a_module_hands_on_leads_to_where_it_is_defined(write: Write) -> None:
    write("shared", SHARED)
    write("between", "from PACKAGE.shared import parse as parse\nfrom PACKAGE.shared import unrelated as unrelated\n")
    write("top", "from PACKAGE import between\n\ndef run(data):\n    return between.parse(data)\n")
    before = definition(write, "top:run")
    write("shared", SHARED.replace("return OTHER", "return LIMIT"))
    assert definition(write, "top:run") == before
    write("shared", SHARED.replace("len(data)", "0"))
    assert definition(write, "top:run") != before


def test_packages_of_the_platform_only_bind_names() -> None:
    packages = sorted(path for path in Path(digests.__file__).parents[2].rglob("__init__.py"))
    found = {path: definitions._file(path.read_text(encoding="utf-8"), is_product=False).widening for path in packages}
    assert len(found) > 20 and {str(path): ast.unparse(node) for path, node in found.items() if node} == {}
