"""Decide whether a run of this machine has lost its process: the sensor `orphaned_steps` fails it then.

A run's log names the process that executes it. A process of that number is the run's own only if it was created before
the log entry; otherwise the number was reused, and the run's process is gone. When in doubt, it counts as alive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

START_S = 60.0
"""How long a run may be STARTING before its log names a process."""
SLACK_S = 2.0
"""Tolerance between the time of a process and that of a log entry."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """The process that has a number on this machine now.

    Attributes:
        created_at_s: when it was created, by the wall clock.
        is_zombie: whether it has ended and its parent has not noticed.
    """

    created_at_s: float
    is_zombie: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a run: leave it alone, or end it (`fail` or `cancel`); and why."""

    action: Literal["leave", "fail", "cancel"]
    reason: str


def plan(status: str, workers: Sequence[tuple[float, Process | None]], *, starting_s: float | None) -> Plan:
    """Decide what to do about a run.

    Args:
        status: Dagster's.
        workers: when its log named a process, by the wall clock, with the process that has that number now.
        starting_s: for how long it has been STARTING; None when unknown.
    """
    for logged_at_s, process in workers:
        # One that was created later has only got the number.
        if process and not process.is_zombie and process.created_at_s <= logged_at_s + SLACK_S:
            return Plan(action="leave", reason="its process is alive")
    if not workers:
        if status == "STARTING" and (starting_s is None or starting_s <= START_S):
            return Plan(action="leave", reason="it is starting")
        if status == "STARTED":
            return Plan(action="leave", reason="its log names no process, so it counts as alive")
        reason = f"its log named no process within {START_S:.0f} seconds: the launch was interrupted"
    else:
        reason = "its process is gone: it was killed, or the machine was restarted"
    if status == "CANCELING":
        return Plan(action="cancel", reason=reason)
    return Plan(action="fail", reason=reason)


def process(pid: int) -> Process | None:
    """Return the process that has a number now, None for none."""
    try:
        found = psutil.Process(pid)
        return Process(created_at_s=found.create_time(), is_zombie=found.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return Process(created_at_s=0.0, is_zombie=False)  # what may not be looked at counts as alive
