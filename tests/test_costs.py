"""In CI a test that costs too much fails; a fixture of the session is part of no test's cost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = """
import os
import pytest
from tests import costs

costs.MOST_S, costs.slowness = 0.2, lambda: 1.0

def burn():
    began = costs.cpu_s()
    while costs.cpu_s() < began + 0.3:
        pass

@pytest.fixture(scope="session")
def shared():
    burn()
    yield
    burn()

@pytest.fixture
def own():
    burn()

def test_with_shared(shared): ...
def test_with_own(own): ...
def test_last(shared): ...
"""


@pytest.mark.parametrize("variables", [{"CI": "true"}, {}])
def test_what_a_test_costs_is_judged_in_ci(tmp_path: Path, repository: Path, variables: dict[str, str]) -> None:
    (tmp_path / "test_burning.py").write_text(TESTS, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | variables
    command = [sys.executable, "-m", "pytest", "-p", "tests.costs", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    ended = subprocess.run(
        [*command, f"--rootdir={tmp_path}"],
        cwd=repository,
        env=environment | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert len(failed) == len(variables), ended.stdout
    assert all("test_with_own" in line for line in failed)
    lines = [line for line in ended.stdout.splitlines() if "::" in line and "expected at most 0" in line]
    named = {line.split("::")[-1].split()[0] for line in lines}
    assert named == {"test_with_own"}, ended.stdout
