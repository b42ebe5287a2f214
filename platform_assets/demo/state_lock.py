"""Let one demo or one `driftline dev` at a time work on a state: two daemons would launch and end each other's runs.

Belongs here: who holds a state, and the sentence for whoever comes second. Does not belong here: the processes that
work on it (`processes.py`).

The kernel holds the lock (`flock`) for as long as any process has the file open: the holder and the leashes of its
children. So a holder that is killed leaves no lock behind, and none is free before what it had started has ended.
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

from platform_assets.problems import Problem
from platform_assets.settings import Settings

NAME = "in_use"
PATIENCE_S = 20.0
"""How long to wait for the processes of a holder that has ended; their leashes give them 8 s."""


class StateInUse(Problem, ValueError):
    """Another process works on the state; the message names it."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a state: a process by its id and the time of its making, and what it was started for."""

    pid: int
    made_at_s: float
    what: str
    since_utc: str


@contextmanager
def held(settings: Settings, what: str) -> Iterator[int]:
    """Hold the state, and yield the file descriptor that children must inherit (`Children.keeps`).

    Args:
        settings: whose state.
        what: who holds it, for the messages of others: a command.

    Raises:
        StateInUse: somebody else holds it.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    place = settings.state / NAME
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, place, settings.state)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        made_at_s = psutil.Process().create_time()
        holder = Holder(pid=os.getpid(), made_at_s=made_at_s, what=what, since_utc=since)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, place: Path, state: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    advice = "or use another folder (DRIFTLINE_STATE)"
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(place)
        if holder is not None:
            raise StateInUse(
                f"{state} is in use by `{holder.what}` (process {holder.pid}, since {holder.since_utc}). Wait "
                f"until it has ended, end it (Ctrl-C, or kill {holder.pid}), {advice}."
            )
        if time.monotonic() > deadline:
            raise StateInUse(
                f"{state} is in use by processes whose own has ended {PATIENCE_S:.0f} s ago or earlier. Find them with "
                f"`fuser {place}` and end them, {advice}."
            )
        time.sleep(0.1)


def _holder(place: Path) -> Holder | None:
    """Return the holder's record, or None when it has ended or has not written it yet."""
    try:
        holder = msgspec.json.decode(place.read_bytes(), type=Holder)
        process = psutil.Process(holder.pid)
        is_there = process.create_time() == holder.made_at_s and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return None
    return holder if is_there else None
