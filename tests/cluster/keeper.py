"""Keep a cluster's namespaces as long as the process that opened them lives, then remove everything.

The keeper is a process of its own, so that a cluster ends with pytest even if pytest is killed with SIGKILL. Usage:
python -m tests.cluster.keeper NAME PARENT. It prints the process id of the cluster's init, waits until its standard
input or PARENT ends, and prints one line per thing that could not be removed. If the keeper itself is killed, the
kernel kills the init, and the next cluster's `cleanup.sweep` removes the rest.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import cleanup
from tests.cluster.spaces import INIT, UNSHARE, Space, wait_for_init

PR_SET_PDEATHSIG = 1
STOPPED_S = 300.0
"""Two nodes that hold the trainer image are 70,000 files to remove."""
REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def opened(name: str) -> Iterator[Space]:
    """Open the space of a new cluster, whose folder is created too, and remove everything of it at the end.

    Everything is removed too when this process dies.
    """
    cleanup.folder_of(name).mkdir()
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.keeper", name, str(os.getpid())],
        cwd=REPOSITORY,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdout is not None
    space: Space | None = None
    try:
        init = keeper.stdout.readline().strip()
        if not init:
            raise RuntimeError(f"the keeper of {name} did not start; its error is above")
        space = Space(int(init))
        yield space
    finally:
        left, _ = keeper.communicate(timeout=STOPPED_S)
        if space is not None:
            space.wait()
    if left:
        raise RuntimeError(f"{name} could not be removed entirely: {left.split()}")


def main(name: str, parent: int) -> None:
    """Open the namespaces, wait, clean up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = cleanup.folder_of(name)
    descriptor = cleanup.lock(folder)
    assert descriptor is not None, f"{folder} belongs to another cluster"
    opener = subprocess.Popen(
        [*UNSHARE, INIT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_die_with_parent,
    )
    try:
        print(wait_for_init(opener), flush=True)
        _wait_for_end(parent)
    finally:
        opener.kill()  # --kill-child: the init dies with it, and returns when every process of the space is gone
        opener.communicate()
        for path in cleanup.remove(name):
            print(path, flush=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_end(parent: int) -> None:
    """Return when standard input ends or the parent does: a fork of it may hold the pipe open."""
    watched = os.pidfd_open(parent)
    if os.getppid() == parent:
        select.select([sys.stdin, watched], [], [])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
