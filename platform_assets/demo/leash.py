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
    # Before the kernel is asked for SIGTERM: its default action would end the leash and leave what is below it.
    for number in _ENDING:
        signal.signal(number, _let_go)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The holder may have died before the kernel was asked to tell of it.
    if os.getppid() != holder:
        return 1
    try:
        child, ended = subprocess.Popen(command), 0
        while ended != child.pid:  # orphans that were adopted meanwhile are reaped too
            ended, code = os.waitpid(-1, 0)
        child.returncode = status = os.waitstatus_to_exitcode(code)
    except _LetGo:
        status = -signal.SIGTERM
    # A second Ctrl-C must not stop the ending halfway.
    _ignore_signals()
    end_descendants(grace_s)
    return status


def end_descendants(grace_s: float) -> None:
    """End every process below this one: SIGTERM, then SIGKILL for those still alive after `grace_s`."""
    signalled: set[int] = set()
    deadline = time.monotonic() + grace_s
    # Looked at again in each turn: what is ending may still start processes.
    while living := [process for process in psutil.Process().children(recursive=True) if _is_alive(process)]:
        is_late = time.monotonic() > deadline
        for process in living:
            if is_late or process.pid not in signalled:
                signalled.add(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL if is_late else signal.SIGTERM)
        time.sleep(0.05)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # the reaper of orphans must collect them
                pass


def _let_go(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise _LetGo


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # psutil lists zombies, too, which no signal ends
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
