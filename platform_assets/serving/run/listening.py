"""Bind a port, and find the listening sockets of this process."""

from __future__ import annotations

import os
import socket

import psutil

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings

BACKLOG = 2048
"""Connections that may wait to be accepted: uvicorn's default."""


class PortProblem(Problem):
    """A port that is taken, or that there cannot be."""


def bound(address: str, port: int) -> socket.socket:
    """Return a listening socket, not blocking; raise `PortProblem` if there can be none."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or connections in TIME_WAIT would keep the port
    try:
        listening.bind((address, port))
    except (OSError, OverflowError) as problem:
        listening.close()
        reason = problem.strerror if isinstance(problem, OSError) else "ports are 0-65535"
        raise PortProblem(f"port {port} of {address} cannot be used: {reason}.") from None
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def bound_for_probes(settings: Settings, public: socket.socket) -> socket.socket:
    """Return a listening socket for the probes of a service, next to that of its callers."""
    host, port = public.getsockname()[:2]
    try:
        return bound(host, settings.probes_port(port))
    except PortProblem as problem:
        raise PortProblem(f"{problem} It is the port of probes; DRIFTLINE_SERVING_PROBES_PORT sets it.") from None


def copies() -> list[socket.socket]:
    """Return a copy of each TCP socket on which this process listens; none where the kernel is not Linux."""
    connections = psutil.Process().net_connections("tcp") if psutil.LINUX else []
    listening = [connection.fd for connection in connections if connection.status == psutil.CONN_LISTEN]
    return [socket.socket(fileno=os.dup(descriptor)) for descriptor in listening]  # closing it leaves ours open
