"""Run a command as a child that dies with this process, and copy what it writes into the run's log.

Belongs here: starting, waiting for and ending such a child. Does not belong here: what is run, or what its end means
(`local.py`, `container.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from platform_assets.settings import REPOSITORY
from resources.launchers.attempt import Attempt

AGAIN_S = 2.0
"""A step that is the first process of a container does not hear SIGTERM before it listens, so it is told again."""

_BECOME = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Ask Linux for SIGTERM when the parent dies (PR_SET_PDEATHSIG, which exec keeps), then become the command."""


@contextmanager
def child(
    command: Sequence[str], environment: Mapping[str, str], *, grace_s: float, folder: Path = REPOSITORY
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a folder; when the block ends, tell it to stop, and kill it after `grace_s`."""
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
    )
    try:
        yield started
    finally:
        until_s = time.monotonic() + grace_s
        while started.poll() is None and (left_s := until_s - time.monotonic()) > 0:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(min(AGAIN_S, left_s))
        if started.poll() is None:
            started.kill()
            started.wait()


def wait(child: subprocess.Popen[str], this: Attempt, *, timeout_s: float | None = None) -> int | None:
    """Forward the child's lines to the run's log until it ends; return its exit code, None when its time is up."""
    assert child.stdout is not None

    def forward(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                this.seen.wrote(line.rstrip(), this.context.log)

    reader = threading.Thread(target=forward, args=(child.stdout,), daemon=True)
    reader.start()
    try:
        exit_code = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    reader.join(timeout=5)
    return exit_code
