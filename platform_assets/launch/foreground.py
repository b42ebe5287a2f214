"""Run a command as a child that dies with this process, and copy its output into the run's log."""

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

from platform_assets.base.settings import REPOSITORY
from platform_assets.launch.attempt import Attempt

AGAIN_S = 2.0
"""Seconds between two SIGTERMs: a container's first process ignores the signal until it has installed a handler."""

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
    """Start a command in a folder; when the block ends, ask it to stop, and kill it after `grace_s`."""
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


def wait(child: subprocess.Popen[str], attempt: Attempt, *, timeout_s: float | None = None) -> int | None:
    """Forward the child's lines to the run's log until it ends; return its exit code, None after the timeout."""
    assert child.stdout is not None

    def forward(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                attempt.observation.add_line(line.rstrip(), attempt.context.log)

    reader = threading.Thread(target=forward, args=(child.stdout,), daemon=True)
    reader.start()
    try:
        exit_code = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    reader.join(timeout=5)
    return exit_code
