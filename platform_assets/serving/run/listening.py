"""Bind a port, and find the listening sockets of this process."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from platform_assets.base.problems import Problem

BACKLOG = 2048
"""Connections that may wait to be accepted: uvicorn's default."""


class PortProblem(Problem):
    """A port that is taken, or that there cannot be."""


def bound(address: str, port: int) -> socket.socket:
    """Return a listening socket, not blocking; raise `PortProblem` if there can be none."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except (OSError, OverflowError) as problem:
        listening.close()
        reason = problem.strerror if isinstance(problem, OSError) else "ports are 0-65535"
        raise PortProblem(f"port {port} of {address} cannot be used: {reason}.") from None
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def copies() -> list[socket.socket]:
    """Return a copy of each TCP socket on which this process listens; none where Linux' /proc is missing."""
    folder = Path("/proc/self/fd")
    descriptors = [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    by_inode: dict[int, socket.socket] = {}
    for descriptor in descriptors:
        copy = _copy(descriptor)
        # Two descriptors may belong to one socket.
        if copy is not None and by_inode.setdefault(os.fstat(copy.fileno()).st_ino, copy) is not copy:
            copy.close()
    return list(by_inode.values())


def _copy(descriptor: int) -> socket.socket | None:
    """Return a copy of a listening TCP socket, or None for anything else."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        duplicate = os.dup(descriptor)
    except OSError:  # closed meanwhile
        return None
    try:
        copy = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return None
    is_tcp = copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM
    if is_tcp and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return copy
    copy.close()
    return None
