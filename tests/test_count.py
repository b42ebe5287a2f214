"""How much code there is, and what an order may add, on a small repository."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "count.py"
COUNT = runpy.run_path(str(SCRIPT))
CODE = '"""Docstring."""\n\n# A comment.\nx = 1\ny = [1, 2]\n'


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose newest order began with its first commit and may add two lines."""
    files = {
        "driftline/__init__.py": "",
        "platform_assets/keys.py": CODE,
        "platform_assets/products/base.py": "x = 1\n",
        "platform_assets/products/planes.py": "SPEC = 1\n",
        "platform_assets/products/typed.py": "SPEC: int = 1\n",
        "platform_assets/report/page.html": "<p>\n\n</p>\n",
        "resources/store.py": "def f(): return 1\n",
        "sensors/__init__.py": "",
        "pyproject.toml": "[tool.importlinter]\n",
        ".ci/count.py": SCRIPT.read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    budget(tmp_path, git(tmp_path, "rev-parse", "HEAD"), 2)
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Change")


def budget(root: Path, first: str, lines: int) -> None:
    rows = [{"order": "small", "first_commit": first, "lines": lines}]
    (root / ".ci/budgets.json").write_text(json.dumps(rows), encoding="utf-8")


def check(root: Path, option: str = "--check") -> tuple[int, str]:
    ended = subprocess.run([sys.executable, root / ".ci/count.py", option], capture_output=True, text=True)
    return ended.returncode, ended.stderr


def test_packages_products_and_other_files_are_counted_apart(root: Path) -> None:
    assert COUNT["measure"](root) == {
        "driftline": 0,
        "platform_assets": 2,
        "platform_assets/products": 1,
        "resources": 1,
        "sensors": 0,
        "sum without products": 4,
        "products": 2,
        "files that are not Python": 2,
    }


def test_an_order_that_adds_more_lines_than_its_budget_is_refused(root: Path) -> None:
    (root / "resources/store.py").write_text("x = 1\n" * 3, encoding="utf-8")
    assert check(root) == (0, "")
    (root / "resources/store.py").write_text("x = 1\n" * 4, encoding="utf-8")
    assert check(root) == (1, "small has 1 lines more than its budget. Delete something.\n")


def test_a_negative_budget_is_asked_at_the_end_of_an_order(root: Path) -> None:
    shutil.rmtree(root / ".git")  # its history has a row of another budget
    (root / ".ci/budgets.json").unlink()
    git(root, "init", "-q")
    commit(root)
    budget(root, git(root, "rev-parse", "HEAD"), -1)
    commit(root)
    assert check(root) == (0, "")
    assert check(root, "--done") == (1, "small has 1 lines more than its budget. Delete something.\n")
    (root / "resources/store.py").write_text("", encoding="utf-8")
    assert check(root, "--done") == (0, "")
    (root / "resources/store.py").write_text("x = 1\n" * 2, encoding="utf-8")
    assert check(root) == (1, "small has 1 lines more than its budget. Delete something.\n")


def test_code_that_moved_out_of_the_packages_counts_as_kept(root: Path) -> None:
    (root / "platform_assets/keys.py").write_text(CODE + "z = 1\n" * 2, encoding="utf-8")
    (root / "proof").mkdir()
    git(root, "mv", "platform_assets/keys.py", "proof/keys.py")
    commit(root)
    (root / "resources/store.py").write_text("x = 1\n" * 2, encoding="utf-8")
    assert check(root) == (1, "small has 1 lines more than its budget. Delete something.\n")


def test_a_package_that_was_a_file_counts_on_both_sides(root: Path) -> None:
    shutil.rmtree(root / "driftline")
    (root / "driftline.py").write_text("x = 1\n" * 5, encoding="utf-8")
    shutil.rmtree(root / ".git")  # its history has rows of another order
    (root / ".ci/budgets.json").unlink()
    git(root, "init", "-q")
    commit(root)
    budget(root, git(root, "rev-parse", "HEAD"), 2)
    (root / "driftline.py").unlink()
    (root / "driftline").mkdir()
    (root / "driftline/__init__.py").write_text("x = 1\n" * 7, encoding="utf-8")
    commit(root)
    assert check(root) == (0, "")
    (root / "driftline/more.py").write_text("x = 1\n", encoding="utf-8")
    assert check(root) == (1, "small has 1 lines more than its budget. Delete something.\n")


def test_a_row_that_was_raised_is_refused(root: Path) -> None:
    budget(root, git(root, "rev-parse", "HEAD~"), 2_000)
    assert check(root)[0] == 1
    commit(root)
    assert "A row never changes" in check(root)[1]


def test_a_function_with_one_caller_counts_unless_it_is_a_generator_or_has_several_returns() -> None:
    text = "def _a(): return 1\ndef _b(): yield 1\ndef _c():\n if x: return 1\n return 2\ndef _d(): return 1\n"
    tree = COUNT["ast"].parse(text + "_a(); _b(); _c(); f(_d); _e(); _e()\ndef _e(): return 1\n")
    once = list(COUNT["called_once"](tree))
    assert [function.name for function, _ in once] == ["_a", "_b", "_c", "_d"]
    assert [function.name for function, is_called in once if is_called and COUNT["is_plain"](function)] == ["_a"]
