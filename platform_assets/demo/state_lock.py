"""Lock a state for one demo or one `driftline dev`: two daemons would launch and end each other's runs.

The kernel holds the lock (`flock`) as long as any process has the file open: the holder and the leashes of its
children. So a killed holder leaves no lock behind, and the lock is not free before the holder's children have ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings

NAME = "in_use"
PATIENCE_S = 20.0
"""Seconds to wait for the children of a holder that has ended; their leashes give them 8 s."""


class StateInUse(Problem, ValueError):
    """Another process uses the state; the message names it."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a state, by id and creation time, and its command."""

    pid: int
    made_at_s: float
    command: str
    since_utc: str


@contextmanager
def held(settings: Settings, command: str) -> Iterator[int]:
    """Hold the state, and yield the file descriptor that children must inherit (`Children.keeps`).

    Args:
        command: what holds it, for the messages of others.

    Raises:
        StateInUse: another process holds it.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    path = settings.state / NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, path, settings.state)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        made_at_s = psutil.Process().create_time()
        holder = Holder(pid=os.getpid(), made_at_s=made_at_s, command=command, since_utc=since)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, state: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    advice = "or use another folder (DRIFTLINE_STATE)"
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(path)
        if holder is not None:
            raise StateInUse(
                f"{state} is in use by `{holder.command}` (process {holder.pid}, since {holder.since_utc}). Wait "
                f"until it has ended, end it (Ctrl-C, or kill {holder.pid}), {advice}."
            )
        if time.monotonic() > deadline:
            raise StateInUse(
                f"{state} is in use by processes whose parent ended at least {PATIENCE_S:.0f} s ago. Find them with "
                f"`fuser {path}` and end them, {advice}."
            )
        time.sleep(0.1)


def _holder(path: Path) -> Holder | None:
    """Return the holder's record, or None when the holder has ended or has not written it yet."""
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=Holder)
        process = psutil.Process(holder.pid)
        is_alive = process.create_time() == holder.made_at_s and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return None
    return holder if is_alive else None
