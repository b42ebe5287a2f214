"""The last lines of `.ci/run`, from what its phases left."""

import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "failures.py"
lines: Callable[..., Iterator[str]] = runpy.run_path(str(SCRIPT))["lines"]
PLANTED = """
import pytest

def test_sums() -> None:
    assert 1 + 1 == 3, "\\n".join(f"line {number}" for number in range(40))

@pytest.fixture
def store() -> None:
    raise OSError("the disk is full")

def test_stores(store: None) -> None: ...

def test_passes() -> None: ...
"""


def test_each_failed_test_is_named_with_the_first_lines_of_its_error(tmp_path: Path) -> None:
    file = tmp_path / "test_planted.py"
    file.write_text(PLANTED, encoding="utf-8")
    options = ["--rootdir", tmp_path, "-c", "/dev/null", "--junitxml", tmp_path / "fast.xml", "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *options, file], cwd=tmp_path, capture_output=True)
    shown = list(lines(tmp_path, "fast", "fast tests", "FAILED after 3 s"))
    assert shown[:4] == [
        "\n=== fast tests (.ci/run fast): FAILED after 3 s",
        "--- test_planted.py::test_sums",
        "    AssertionError: line 0",
        "      line 1",
    ]
    assert shown[16:19] == ["      line 14", "--- test_planted.py::test_stores", shown[18]]
    assert "the disk is full" in shown[18]
    assert not any("test_passes" in line for line in shown)


def test_a_phase_without_tests_ends_with_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "lint.log").write_text("".join(f"{number}\n" for number in range(40)), encoding="utf-8")
    assert list(lines(tmp_path, "lint", "lint", "FAILED after 1 s"))[1:] == [
        f"    {number}" for number in range(25, 40)
    ]


def test_what_was_left_out_is_one_line(tmp_path: Path) -> None:
    assert list(lines(tmp_path, "cluster", "a cluster", 'left out: it needs "images"')) == [
        '\n=== a cluster (.ci/run cluster): left out: it needs "images"'
    ]
