"""Remove what outlives a cluster's processes: its control groups and its folder. Needs the standard library alone."""

import fcntl
import os
import re
import secrets
import shutil
import signal
import tempfile
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
NAME = re.compile(r"kube-[0-9a-f]{6}")
"""All names have one length, so none is the beginning of another, whose control groups it would remove."""
LOCK = "keeper.lock"
PATIENCE_S = 8.0


def new_name() -> str:
    """Return a name that no cluster has."""
    return f"kube-{secrets.token_hex(3)}"


def folder_of(name: str) -> Path:
    """Return the folder of a cluster. Its path is short: that of a unix socket in it holds 107 characters at most."""
    return Path(tempfile.gettempdir()) / name


def lock(folder: Path) -> int | None:
    """Lock a cluster's folder and return the descriptor, or None if the cluster's keeper lives."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def hierarchies() -> list[Path]:
    """Return the roots of this machine's control groups: one per controller in version 1, one in version 2."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def cgroups(name: str) -> list[Path]:
    """Return a cluster's top control groups."""
    assert NAME.fullmatch(name), name
    return [path / name for path in hierarchies() if (path / name).is_dir()]


def remove_cgroups(*roots: Path) -> None:
    """Kill what is left in control groups, and remove them with everything below."""
    deadline = time.monotonic() + PATIENCE_S
    while any(root.is_dir() for root in roots):
        for root in roots:
            for folder, _, _ in os.walk(root, topdown=False):
                _remove_cgroup(Path(folder))
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def remove(name: str) -> list[str]:
    """Remove a cluster whose processes have ended, and return what could not be removed."""
    remove_cgroups(*cgroups(name))
    shutil.rmtree(folder_of(name), ignore_errors=True)
    left = [*cgroups(name), folder_of(name)]
    return [str(path) for path in left if path.exists()]


def sweep() -> list[str]:
    """Remove the clusters whose keeper was killed, and return their names."""
    swept = []
    for folder in Path(tempfile.gettempdir()).glob("kube-*"):
        # A folder without a lock is about to get its keeper.
        if NAME.fullmatch(folder.name) and (folder / LOCK).exists():
            descriptor = lock(folder)
            if descriptor is not None:
                remove(folder.name)
                os.close(descriptor)
                swept.append(folder.name)
    return swept


def _remove_cgroup(folder: Path) -> None:
    try:
        for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            if pid != "0":  # a process of another process namespace
                os.kill(int(pid), signal.SIGKILL)
        folder.rmdir()
    except OSError:
        pass  # busy until the kernel has reaped the processes, or gone already: `remove_cgroups` looks again
