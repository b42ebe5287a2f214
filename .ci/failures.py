"""Print what failed in a run of `.ci/run`: each phase, each test of it by name, the first lines of its error.

Arguments: the folder with `PHASE.log` and, of phases that run tests, `PHASE.xml`. On standard input a line per phase:
its name, its title and how it ended, between bars.
"""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

LINES = 15
"""Of an error: the first, and of a phase that runs no tests the last, where the error is."""


def lines(folder: Path, name: str, title: str, how: str) -> Iterator[str]:
    """Yield what a person needs of one phase."""
    yield f"\n=== {title} (.ci/run {name}): {how}"
    if how.startswith("left out"):
        return
    tests = list(failed_tests(folder / f"{name}.xml"))
    for test, error in tests:
        yield f"--- {test}"
        yield from (f"    {line}" for line in error.splitlines()[:LINES])
    if not tests:
        log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        yield from (f"    {line}" for line in log.splitlines()[-LINES:])


def failed_tests(results: Path) -> Iterator[tuple[str, str]]:
    """Yield name and error of each test that failed; none where pytest did not get to write its results."""
    if not results.exists():
        return
    for case in ET.parse(results).iter("testcase"):
        for outcome in (*case.findall("failure"), *case.findall("error")):
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            message = outcome.get("message") or ""
            yield name, (outcome.text or "") if message in ("", "collection failure") else message


if __name__ == "__main__":
    for row in sys.stdin.read().splitlines():
        print("\n".join(lines(Path(sys.argv[1]), *row.split("|", 2))))
