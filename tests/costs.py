"""Measure what each test costs: CPU seconds of its process and of the processes that it started and waited for.

A fixture counts with the test that makes it, one of the whole session with none. A test that costs more than `MOST_S`,
on a slower machine as much more, is named at the end, and in CI it fails, unless it belongs to the proof.
"""

import functools
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

MOST_S = 20.0
"""Of CPU; what costs more belongs to the proof."""
IMPORT_S = 0.53
"""Of CPU, to import Dagster in a process of its own, on the machine for which `MOST_S` was set."""
FILE = "TEST_COSTS"
"""Variable that names a file for the seconds of each test, as JSON."""
_costs: dict[str, float] = {}
_problems: list[str] = []
_began, _shared = pytest.StashKey[float](), pytest.StashKey[float]()
"""The CPU seconds when a test began, and those of the session's fixtures since."""


def cpu_s() -> float:
    """Return the CPU seconds of this process and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note when a test begins, before its fixtures."""
    item.stash[_began], item.stash[_shared] = cpu_s(), 0.0
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Take what a fixture of the session costs from the test that happens to be the first to ask for it."""
    item, before = request._pyfuncitem, cpu_s()
    inner = item.stash[_shared]
    try:
        return (yield)
    finally:
        if fixturedef.scope == "session":  # those that it asked for are part of it
            item.stash[_shared] = inner + cpu_s() - before


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Leave out the end of the session's fixtures, which the last test has to wait for."""
    before = cpu_s()
    yield
    if nextitem is None:
        item.stash[_shared] += cpu_s() - before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send the cost with the report of the test's end, also from a worker."""
    if call.when != "teardown":
        return (yield)
    cost = cpu_s() - item.stash[_began] - item.stash[_shared]
    item.user_properties.append(("cpu_s", cost))
    is_proof = item.nodeid.startswith("proof/") or item.get_closest_marker("thorough") is not None
    if cost <= MOST_S or is_proof or cost <= (most := MOST_S * slowness()):
        return (yield)
    problem = f"cost {cost:.1f} CPU seconds; expected at most {most:.1f}: make it cheaper, or move it into proof/"
    item.user_properties.append(("problem", problem))
    report = yield
    if os.environ.get("CI") and report.passed:
        report.outcome, report.longrepr = "failed", problem
    return report


@functools.cache
def slowness() -> float:
    """Return how many CPU seconds of this machine are one of that for which `MOST_S` was set, at least 1."""
    before = cpu_s()
    subprocess.run([sys.executable, "-c", "import dagster"], check=True)
    return max(1.0, (cpu_s() - before) / IMPORT_S)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the cost of a test."""
    if report.when == "teardown":
        properties = dict(report.user_properties)
        _costs[report.nodeid] = properties.get("cpu_s", 0.0)  # type: ignore[assignment]
        if "problem" in properties:
            _problems.append(f"{report.nodeid} {properties['problem']}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Print what the tests of each folder cost, and those that cost too much."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or not _costs:  # a worker has none
        return
    seconds, numbers = defaultdict[str, float](float), Counter[str]()
    for name, cost in _costs.items():
        folder = "/".join(name.partition("::")[0].split("/")[:-1])
        seconds[folder] += cost
        numbers[folder] += 1
    folders = sorted(seconds, key=lambda name: -seconds[name])
    shown = ", ".join(f"{name} {seconds[name]:.0f} ({numbers[name]})" for name in folders if seconds[name] >= 1)
    terminal.write_line(f"CPU seconds of {len(_costs)} tests: {sum(seconds.values()):.0f}; {shown}")
    if place := os.environ.get(FILE):
        Path(place).write_text(json.dumps(_costs, indent=0), encoding="utf-8")
    for problem in _problems:
        terminal.write_line(problem)
