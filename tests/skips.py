"""Say in one line what to install for the tests that were skipped."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

PACKAGE = re.compile(r"apt-get install ([a-z0-9][a-z0-9+.-]*)")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Print last, below pytest's summary, what to install for the skipped tests."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # a worker has none
        skipped = terminal.stats.get("skipped", ())
        if line := line_of(str(report.longrepr[2]) for report in skipped):
            terminal.write_line(line)


def line_of(reasons: Iterable[str]) -> str:
    """Return the line for the reasons of skipped tests, one per test; empty without any.

    A reason names a package as `apt-get install NAME`, or what else is needed before its first colon.
    """
    packages, others = Counter[str](), Counter[str]()
    for reason in reasons:
        package = PACKAGE.search(reason)
        if package is None:
            others[reason.removeprefix("Skipped: ").partition(":")[0]] += 1
        else:
            packages[package[1]] += 1
    sentences = []
    if packages:
        sentences.append(f"Skipped without {_listed(packages)}: apt-get install {' '.join(sorted(packages))}.")
    if others:
        sentences.append(f"Skipped{' too' * bool(packages)}: {_listed(others)}.")
    return " ".join(sentences)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
