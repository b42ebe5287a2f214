"""How much code there is, and what happens above and below the ceilings, on a small tree."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "count.py"
COUNT = runpy.run_path(str(SCRIPT))
CODE = '"""Docstring."""\n\n# A comment.\nx = 1\ny = [1, 2]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "platform_assets/keys.py": CODE,
        "platform_assets/products/base.py": "x = 1\n",
        "platform_assets/products/planes.py": "SPEC = 1\n",
        "platform_assets/products/typed.py": "SPEC: int = 1\n",
        "platform_assets/report/page.html": "<p>\n\n</p>\n",
        "resources/store.py": "def f(): return 1\n",
        "sensors/__init__.py": "",
        ".ci/count.py": SCRIPT.read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_packages_products_and_other_files_are_counted_apart(root: Path) -> None:
    assert COUNT["measure"](root) == {
        "platform_assets": (2, 8),
        "platform_assets/products": (1, 3),
        "resources": (1, 4),
        "sensors": (0, 0),
        "sum without products": (4, 15),
        "products": (2, 7),
        "files that are not Python": (2, 2),
    }


@pytest.mark.parametrize("joined", ["x = 1; y = 2\n", "x = 1\ny = 2\n"])
def test_joined_lines_have_as_many_nodes(root: Path, joined: str) -> None:
    (root / "resources/store.py").write_text(joined, encoding="utf-8")
    assert COUNT["measure"](root)["resources"].nodes == 6


def test_each_word_of_a_long_text_is_a_node_and_a_docstring_is_none(root: Path) -> None:
    text = "code " * 80
    (root / "resources/store.py").write_text(f'"""{text}"""\nx = "{text}"\ny = "short text"\n', encoding="utf-8")
    assert COUNT["measure"](root)["resources"] == (2, 6 + 80)


def _run(root: Path, ceilings: dict[str, Any], *arguments: str) -> tuple[int, str, str, dict[str, Any]]:
    path = root / ".ci" / "ceilings.json"
    path.write_text(json.dumps(ceilings), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, root / ".ci/count.py", *arguments], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr, json.loads(path.read_text(encoding="utf-8"))


def test_a_check_fails_above_one_percent_and_says_what_to_write(root: Path) -> None:
    (root / "resources/store.py").write_text("x = 1\n" * 102, encoding="utf-8")
    sizes = {name: size._asdict() for name, size in COUNT["measure"](root).items()}
    ceilings = {**sizes, "resources": {"lines": 101, "nodes": 306}}
    assert _run(root, ceilings, "--check")[::2] == (0, "")
    code, _, errors, after = _run(root, {**ceilings, "resources": {"lines": 100, "nodes": 306}}, "--check")
    assert code == 1
    assert errors == (
        "resources has 102 lines, 2 above its 100. Delete something, or write "
        '"resources": {"lines": 102, "nodes": 306} into .ci/ceilings.json in a commit that says why.\n'
    )
    assert after["resources"]["lines"] == 100


def test_a_package_without_a_ceiling_fails_and_products_have_none(root: Path) -> None:
    sizes = {name: size._asdict() for name, size in COUNT["measure"](root).items()}
    del sizes["platform_assets/products"], sizes["products"]
    code, _, errors, _ = _run(root, sizes, "--check")
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("platform_assets/products has 1 lines, 1 above its 0 and 3 nodes, 3 above its 0.")


def test_lowering_lowers_and_removes_and_never_raises(root: Path) -> None:
    ceilings = {
        "platform_assets": {"lines": 1, "nodes": 99},
        "platform_assets/gone": {"lines": 5, "nodes": 5},
        "resources": {"lines": 1, "nodes": 4},
    }
    code, output, _, _ = _run(root, ceilings, "--check")
    assert "Below their ceilings: platform_assets, platform_assets/gone. Run `make count LOWER=1`" in output
    code, output, _, after = _run(root, ceilings, "--lower")
    assert (code, output.splitlines()[-1]) == (0, "2 ceilings were lowered or removed.")
    assert after == {"platform_assets": {"lines": 1, "nodes": 8}, "resources": {"lines": 1, "nodes": 4}}
