"""The scripts that build images: what they cannot build they name; what they begin they show, and end."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from platform_assets.base.settings import REPOSITORY

pytestmark = pytest.mark.slow

DIGEST = f"sha256:{'0' * 64}"
COMMAND = ("make", "--no-print-directory", "images", "IMAGES=service", f"BASE=localhost/base@{DIGEST}")
_FIRST = "sh -c 'trap : TERM INT; sleep 611 & wait; wait'"
CONTAINER = f"unshare --pid --fork {_FIRST} || {_FIRST}"
"""Of a container, whose first process ignores SIGTERM and outlives podman; in a namespace where that is allowed."""
RLIMIT = "error during container init: error setting rlimits for ready process: error setting rlimit type 7"
PATIENCE_S = 600.0


@pytest.mark.parametrize("command", [["deploy/images/build.sh"], ["python3", "deploy/images/twice.py"]])
def test_an_unknown_image_is_named(command: list[str]) -> None:
    ended = subprocess.run([*command, "service", "nosuch"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    expected = "IMAGES names nosuch; expected some of platform, service, trainer\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", expected)


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that has podman build as a shell's commands say; all else that it is asked succeeds."""

    def write(building: str) -> None:
        program = tmp_path / "podman"
        answers = f'case "$*" in *Size*) echo 1 ;; *) echo "{DIGEST}" ;; esac'
        text = f'#!/bin/bash\ncase "$1" in\nbuild)\n{building}\n;;\nimage) {answers} ;;\nesac\n'
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return write


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(argv: Sequence[str] = COMMAND) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                ["env", "--default-signal=HUP", *argv],  # what runs the tests may be started by nohup
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return processes[-1]

    yield start
    # All of them, also those whose parents are gone: one that is left would hold the outputs open.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(tmp_path):
                process.kill()
    for process in processes:
        process.communicate()


@pytest.mark.costly
def test_what_takes_long_is_shown_with_seconds_and_digests_go_to_standard_output(
    podman: Callable[[str], None], started: Callable[..., subprocess.Popen[str]]
) -> None:
    podman("echo 'STEP 1/2: FROM x'; echo 'Collecting polars'; sleep 17; echo '[2/3] STEP 2/2: RUN pip install'")
    output, errors = started().communicate(timeout=PATIENCE_S)
    assert output == f"{DIGEST}\n"  # as the podman of this test answers every question about an image
    lines = errors.splitlines()
    assert any(line.endswith("service step 1/2: FROM x") and line.split()[1] == "s" for line in lines), errors
    assert re.search(r"service step 1/2: Collecting polars \.\.\. for \d+ s$", errors, re.MULTILINE), errors
    assert any("service step 2/2: RUN pip install" in line for line in lines), errors


@pytest.mark.costly
@pytest.mark.parametrize(
    ("argv", "number", "reaches_all", "name"),
    [
        (COMMAND, signal.SIGINT, True, "SIGINT"),
        (COMMAND, signal.SIGTERM, False, "SIGTERM"),
        (("bash", "-c", f"{shlex.join(COMMAND)}; true"), signal.SIGTERM, False, "SIGHUP"),
    ],
    ids=["Ctrl-C in a terminal", "SIGTERM to make", "SIGTERM to a script that runs make"],
)
def test_an_interruption_ends_podman_and_its_containers(
    podman: Callable[[str], None],
    started: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    argv: Sequence[str],
    number: signal.Signals,
    name: str,
    *,
    reaches_all: bool,
) -> None:
    """A terminal signals every process of its foreground group; a script that dies tells nobody."""
    podman(f"trap 'exit 1' TERM INT; ({CONTAINER}) & wait")
    process = started(argv)
    begun, until_s = list[psutil.Process](), time.monotonic() + PATIENCE_S
    while not any(_is_contained(child) for child in begun):
        assert time.monotonic() < until_s
        time.sleep(0.1)
        begun = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if reaches_all else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert f"ends what was started, after {name}" in errors
    _, alive = psutil.wait_procs(begun, timeout=PATIENCE_S)
    assert alive == []
    assert not list(tmp_path.glob("tmp*")), "the script removes its folder"


def _is_contained(process: psutil.Process) -> bool:
    try:
        return process.cmdline() == ["sleep", "611"]
    except psutil.Error:
        return False


@pytest.mark.costly
def test_a_machine_that_may_not_raise_limits_is_told_the_remedy(
    podman: Callable[[str], None], started: Callable[..., subprocess.Popen[str]]
) -> None:
    podman(f"echo 'STEP 1/1: RUN x'; echo '{RLIMIT}: operation not permitted' >&2; exit 125")
    process = started()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert RLIMIT in errors
    assert 'CONTAINERS_CONF="$PWD/deploy/images/containers.conf" make images' in errors
