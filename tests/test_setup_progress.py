"""Output of `make setup` while pip works, from the output of old and new versions of pip."""

import os
import pty
import runpy
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "follow.py"


@pytest.fixture(scope="module")
def progress() -> Callable[[Iterable[str], int], Iterator[str]]:
    return runpy.run_path(str(SCRIPT))["progress"]


def test_packages_and_megabytes_are_counted_and_metadata_is_not(
    progress: Callable[[Iterable[str], int], Iterator[str]],
) -> None:
    new = ["Collecting a\n", "  Downloading a-1-py3-none-any.whl.metadata (2.1 kB)\n"]
    new += ["Downloading a-1-py3-none-any.whl (1.5 GB)\n", *["Using cached b-1.whl (12.5 MB)\n"] * 18]
    old = ["  Downloading c-1.tar.gz (500kB)\n", "Installing collected packages: a, b, c\n"]
    assert list(progress([*new, *old], 207)) == [
        "  2/3 downloading: 20 of about 207 packages, 1,726 MB",
        "  3/3 installing: 20 packages downloaded, 1,726 MB; takes a minute or two",
    ]


def test_resolving_is_shown_before_anything_is_downloaded(
    progress: Callable[[Iterable[str], int], Iterator[str]],
) -> None:
    assert list(progress(["Collecting a\n"] * 45, 207)) == ["  2/3 resolving: 40 of about 207 packages"]


def test_a_terminal_gets_a_bar_for_each_phase_to_its_end(tmp_path: Path) -> None:
    """While pip installs it says nothing, so what it has installed so far is counted in the environment."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    old = packages / "old-1.dist-info"
    old.mkdir()
    os.utime(old, (0, 0))
    screen, terminal = pty.openpty()
    command = [sys.executable, str(SCRIPT), str(tmp_path / "pip.log"), "9"]
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"COLUMNS": "100"}
    shown = ""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=terminal, stderr=terminal, text=True, env=environment
    ) as following:
        os.close(terminal)
        assert following.stdin is not None

        def say(text: str, *, until: str) -> None:
            nonlocal shown
            assert following.stdin is not None
            following.stdin.write(text)
            following.stdin.flush()
            deadline = time.monotonic() + 600
            while until not in shown:
                assert time.monotonic() < deadline, shown
                if select.select([screen], [], [], 1)[0]:
                    shown += os.read(screen, 4096).decode()

        say("Collecting a\nCollecting b\nCollecting c\n", until="resolving    [########................] 3 of about 9")
        say("Downloading a.whl (1.5 MB)\n", until="downloading  [##......................] 1 of about 9 packages, 2 MB")
        say("Downloading b.whl (1.5 MB)\nInstalling collected packages: a, b\n", until="] 0 of 2 packages")
        (packages / "a-1.dist-info").mkdir()
        say("", until="installing   [############............] 1 of 2 packages")
        following.stdin.write("Successfully installed a-1 b-1\n")
        following.stdin.close()
        while True:
            try:
                shown += os.read(screen, 4096).decode()
            except OSError:  # the other end is closed
                break
    os.close(screen)
    assert following.returncode == 0
    last = [line.rpartition("\x1b[K")[2] for line in shown.split("\n") if line]
    assert [line.rstrip("\r") for line in last] == [
        "  2/3 downloading  [########################] 2 of 2 packages, 3 MB",
        "  3/3 installing   [########################] 2 of 2 packages",
    ]


def test_a_pipe_and_ci_get_lines_without_control_characters(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "pip.log"), "20"]
    said = "Collecting a\n" * 20 + "Downloading a.whl\n" * 20 + "Installing collected packages: a\n"
    ended = subprocess.run(command, input=said, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "  2/3 downloading: 20 of about 20 packages, 0 MB",
        "  3/3 installing: 20 packages downloaded, 0 MB; takes a minute or two",
    ]
    assert (tmp_path / "pip.log").read_text(encoding="utf-8") == said
