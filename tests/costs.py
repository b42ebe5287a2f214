"""Measure what each test costs: CPU seconds of its process and of the processes that it started and waited for.

A fixture counts with the test that makes it. A test that costs more than `MOST_S` is named at the end.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

MOST_S = 20.0
"""Of CPU; what costs more belongs into `proof/`."""
FILE = "TEST_COSTS"
"""Variable that names a file for the seconds of each test, as JSON."""
_costs: dict[str, float] = {}
_began = pytest.StashKey[float]()


def cpu_s() -> float:
    """Return the CPU seconds of this process and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note when a test begins, before its fixtures."""
    item.stash[_began] = cpu_s()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
    """Send the cost with the report of the test's end, also from a worker."""
    if call.when == "teardown":
        item.user_properties.append(("cpu_s", cpu_s() - item.stash[_began]))
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the cost of a test."""
    if report.when == "teardown":
        _costs[report.nodeid] = dict(report.user_properties).get("cpu_s", 0.0)  # type: ignore[assignment]


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
    for name, cost in _costs.items():
        if cost > MOST_S:
            terminal.write_line(f"{name} cost {cost:.1f} CPU seconds; expected at most {MOST_S:.0f} outside of proof/")
