"""Run what `make test` and `.ci/run` run three times and name what differed (`make flaky`).

Arguments: phases of `.ci/run`; by default those of tests. The third time 20 loops keep the machine busy. A test that
fails and passes on the same commit is a defect, whatever the load.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

PHASES = ("test", "goldens", "inside", "cluster", "costly")
LOAD = 20


def main(phases: list[str]) -> int:
    """Run and compare; return 1 where something differed."""
    outcomes = defaultdict[str, list[str]](list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(3):
            kept = Path(folder, str(number))
            busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOAD * (number == 2))]
            try:
                variables = {**os.environ, "KEEP": str(kept), "UNTIL_S": str(24 * 3600)}
                subprocess.run([".ci/run", *phases], env=variables, check=False)
            finally:
                for process in busy:
                    process.kill()
            for phase in phases:
                for test, outcome in tests(kept / f"{phase}.xml"):
                    outcomes[f"{phase} {test}"].append(outcome)
    differed = {name: seen for name, seen in sorted(outcomes.items()) if len(set(seen)) > 1 or len(seen) != 3}
    print(f"\n{len(outcomes)} tests, three times, the third at a load of {LOAD}; {len(differed)} differed.")
    for name, seen in differed.items():
        print(f"{name}: {', '.join(seen)}")
    return int(bool(differed))


def tests(results: Path) -> list[tuple[str, str]]:
    """Return name and outcome of each test; one entry without a name where there are no results."""
    if not results.exists():
        return [("(no results)", "failed")]
    kinds = ("failure", "error", "skipped")
    return [
        (
            f"{case.get('classname')}::{case.get('name')}",
            next((kind for kind in kinds if case.find(kind) is not None), "passed"),
        )
        for case in ET.parse(results).iter("testcase")
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PHASES)))
