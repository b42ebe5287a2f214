"""Run a command on a leash: the command and all its descendants end with the process that holds the leash.

`python -m platform_assets.demo.leash HOLDER_PID GRACE_S COMMAND...` runs the command as its child. When the holder
dies (by SIGKILL too), the leash gets SIGTERM, or the command ends, every process below is ended: SIGTERM first, then
SIGKILL. On Linux the leash is also the reaper of processes whose parents are gone (a daemon's runs, a server's
workers); elsewhere it finds processes only while their parents live.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class _LetGo(Exception):
    """The holder died, or the leash got a signal."""


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the leash is let go; return its exit status (negative for a signal)."""
    holder, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    for number in _ENDING:
        signal.signal(number, _let_go)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != holder:
        return 1
    try:
        status = _wait(subprocess.Popen(command))
    except _LetGo:
        status = -signal.SIGTERM
    _ignore_signals()
    end_descendants(grace_s)
    return status


def end_descendants(grace_s: float) -> None:
    """End every process below this one: SIGTERM, then SIGKILL for those still alive after `grace_s`."""
    signalled: set[int] = set()
    deadline = time.monotonic() + grace_s
    while living := [process for process in psutil.Process().children(recursive=True) if _is_alive(process)]:
        is_late = time.monotonic() > deadline
        for process in living:
            if is_late or process.pid not in signalled:
                signalled.add(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL if is_late else signal.SIGTERM)
        time.sleep(0.05)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _let_go(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise _LetGo


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the command, and reap orphans adopted meanwhile."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
