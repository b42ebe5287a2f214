"""Show how far `pip install` is: `pip install ... | follow.py LOG COUNT`, for `make setup`.

Prints packages and megabytes while pip resolves and downloads, and appends pip's output to LOG. Runs on any Python 3.11
without installed packages, and understands the output of old and new pip.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

EVERY = 20
FILE = re.compile(r"\s*(?:Downloading|Using cached) (?!.*\.metadata)(?:.*\(([0-9.]+) ?([kMG]?)B\))?")
MEGABYTES = {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}


def main() -> None:
    """Follow standard input."""
    path, count = Path(sys.argv[1]), int(sys.argv[2])
    with path.open("a", encoding="utf-8") as log:
        for line in progress(_copied(sys.stdin, log), count):
            print(line, flush=True)


def progress(lines: Iterable[str], count: int) -> Iterator[str]:
    """Yield a line for every 20 packages that pip has resolved or downloaded, and one when it begins to install.

    Args:
        lines: of pip's output.
        count: about how many packages there are.
    """
    resolved, files, size = 0, 0, 0.0
    for line in lines:
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            resolved += 1
            if resolved % (2 * EVERY) == 0 and not files:
                yield f"  2/3 resolving: {resolved} of about {count} packages"
        elif match := FILE.match(line):
            files += 1
            size += float(match[1]) * MEGABYTES[match[2]] if match[1] else 0.0
            if files % EVERY == 0:
                yield f"  2/3 downloading: {files} of about {count} packages, {size:,.0f} MB"
        elif line.startswith("Installing collected"):
            yield f"  3/3 installing: {files} packages downloaded, {size:,.0f} MB; takes a minute or two"


def _copied(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    for line in lines:
        log.write(line)
        yield line


if __name__ == "__main__":
    main()
