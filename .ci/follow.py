"""Show how far `pip install` is: `pip install ... | follow.py LOG COUNT`, for `make setup`.

Appends pip's output to LOG, which is in the virtual environment. On a terminal it draws a bar for what is downloaded
and one for what is installed, each to its end; elsewhere, and in CI, it prints a line now and then. Runs on any Python
3.11 without installed packages, and understands the output of old and new pip.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

EVERY = 20
REDRAWN_S = 0.2
WIDTH = 24
FILE = re.compile(r"\s*(?:Downloading|Using cached) (?!.*\.metadata)(?:.*\(([0-9.]+) ?([kMG]?)B\))?")
MEGABYTES = {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}


@dataclass
class Install:
    """What pip has said so far.

    Attributes:
        count: about how many packages there are.
        environment: the virtual environment's folder.
        to_install: how many pip installs, once it has said so.
    """

    count: int
    environment: Path
    resolved: int = 0
    files: int = 0
    size_mb: float = 0.0
    to_install: int = 0
    is_done: bool = False
    began_s: float = field(default_factory=time.time)

    def take(self, line: str) -> None:
        """Read a line of pip's output."""
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            self.resolved += 1
        elif match := FILE.match(line):
            self.files += 1
            self.size_mb += float(match[1]) * MEGABYTES[match[2]] if match[1] else 0.0
        elif line.startswith("Installing collected"):
            self.to_install = line.count(",") + 1
        elif line.startswith("Successfully installed"):
            self.is_done = True

    def installed(self) -> int:
        """Return how many packages pip has installed: it says nothing until all of them are there."""
        if self.is_done:
            return self.to_install
        folders = self.environment.glob("lib/python*/site-packages/*.dist-info")
        # pip renames what it replaces, so a folder may be gone by now.
        new = sum(folder.stat().st_mtime >= self.began_s for folder in folders if folder.exists())
        return min(new, self.to_install)

    def bar(self) -> str:
        """Return the bar of the present phase."""
        if self.to_install:
            done = self.installed()
            return f"  3/3 installing   {_bar(done, self.to_install)} {done} of {self.to_install} packages"
        if not self.files:
            return (
                f"  2/3 resolving    {_bar(self.resolved, self.count)} {self.resolved} of about {self.count} packages"
            )
        return f"  2/3 downloading  {_bar(self.files, self.count)} {self._downloaded(self.count)}"

    def end_of_download(self) -> str:
        """Return the bar of the download when it is over."""
        return f"  2/3 downloading  {_bar(1, 1)} {self._downloaded(self.files)}"

    def _downloaded(self, count: int) -> str:
        about = "" if count == self.files else "about "
        return f"{self.files} of {about}{count} packages, {self.size_mb:,.0f} MB"


def main() -> None:
    """Follow standard input."""
    path, count = Path(sys.argv[1]), int(sys.argv[2])
    with path.open("a", encoding="utf-8") as log:
        lines = _copied(sys.stdin, log)
        if sys.stdout.isatty() and not os.environ.get("CI"):
            draw(lines, Install(count, path.parent))
            return
        for line in progress(lines, count):
            print(line, flush=True)


def draw(lines: Iterable[str], install: Install) -> None:
    """Draw bars on a terminal while reading pip's output."""
    ended = threading.Event()

    def redraw() -> None:
        while not ended.wait(REDRAWN_S):
            _over(f"{install.bar()}, {time.time() - install.began_s:.0f} s")

    drawing = threading.Thread(target=redraw, daemon=True)
    drawing.start()
    for line in lines:
        was_installing = install.to_install
        install.take(line)
        if install.to_install and not was_installing and install.files:
            _over(install.end_of_download() + "\n")
    ended.set()
    drawing.join()
    _over(f"{install.bar()}\n" if install.to_install else "")


def progress(lines: Iterable[str], count: int) -> Iterator[str]:
    """Yield a line for every 20 packages that pip has resolved or downloaded, and one when it begins to install.

    Args:
        lines: of pip's output.
        count: about how many packages there are.
    """
    install = Install(count, Path())
    for line in lines:
        resolved, files = install.resolved, install.files
        install.take(line)
        if install.resolved > resolved and install.resolved % (2 * EVERY) == 0 and not files:
            yield f"  2/3 resolving: {install.resolved} of about {count} packages"
        elif install.files > files and install.files % EVERY == 0:
            yield f"  2/3 downloading: {install.files} of about {count} packages, {install.size_mb:,.0f} MB"
        elif line.startswith("Installing collected"):
            downloaded = f"{install.files} packages downloaded, {install.size_mb:,.0f} MB"
            yield f"  3/3 installing: {downloaded}; takes a minute or two"


def _bar(done: int, total: int) -> str:
    filled = WIDTH * min(done, total) // max(total, 1)
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}]"


def _over(text: str) -> None:
    """Write over the terminal's last line; a longer one would wrap, and the next would not cover it."""
    end = "\n" if text.endswith("\n") else ""
    columns = shutil.get_terminal_size().columns
    print(f"\r\x1b[K{text.rstrip()[: columns - 1]}", end=end, flush=True)


def _copied(lines: Iterable[str], log: TextIO) -> Iterator[str]:
    for line in lines:
        log.write(line)
        yield line


if __name__ == "__main__":
    main()
