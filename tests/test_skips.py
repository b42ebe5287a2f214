"""`make test` ends with one line that says what to install for the tests that were skipped."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips

pytestmark = pytest.mark.slow

SKIPPING = """
import pytest

@pytest.fixture
def absent():
    pytest.skip("needs haproxy: apt-get install haproxy")

def test_passes(): ...

def test_in_a_fixture(absent): ...

@pytest.mark.parametrize("case", [1, 2])
@pytest.mark.skipif(True, reason="needs the photos: apt-get install dataset-fashion-mnist")
def test_marked(case): ...

def test_without_a_package(): pytest.skip("needs the right to mount a small disk: denied")
"""


def test_packages_are_counted_and_sorted_and_the_rest_is_named() -> None:
    reasons = ["Skipped: needs b: apt-get install b-1.0+x", "Skipped: needs a: apt-get install a", "needs a disk: no"]
    assert skips.line_of([*reasons, reasons[0]]) == (
        "Skipped without a (1), b-1.0+x (2): apt-get install a b-1.0+x. Skipped too: needs a disk (1)."
    )
    assert skips.line_of(["Skipped: needs a disk: no", "Skipped: needs a disk: full"]) == "Skipped: needs a disk (2)."
    assert skips.line_of([]) == ""


@pytest.mark.costly
@pytest.mark.parametrize("workers", [[], ["--numprocesses=2"]])
def test_the_last_line_says_what_to_install(tmp_path: Path, repository: Path, workers: list[str]) -> None:
    (tmp_path / "conftest.py").write_text("from tests.skips import pytest_sessionfinish\n", encoding="utf-8")
    (tmp_path / "test_skipping.py").write_text(SKIPPING, encoding="utf-8")
    assert _last_line(repository, tmp_path, *workers) == (
        "Skipped without dataset-fashion-mnist (2), haproxy (1): apt-get install dataset-fashion-mnist haproxy. "
        "Skipped too: needs the right to mount a small disk (1)."
    )
    assert "1 passed" in _last_line(repository, tmp_path, *workers, "-k", "test_passes")


def _last_line(repository: Path, folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), str(folder), *options]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()[-1]
