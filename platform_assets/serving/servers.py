"""Name a server by its first process, and tell whether it still runs: the name of its folder of metrics.

A restarted container counts process ids from 1 again and keeps its volumes, so an id alone would name the server before
it too, with workers that have died.
"""

from __future__ import annotations

import re
from pathlib import Path

import psutil

_STARTED_AT = 19
"""Place of a process's start among the fields of /proc/PID/stat that follow its name, see proc(5)."""
_NAME = re.compile(r"(\d+)-\d+")


def name_of(pid: int) -> str:
    """Return the name of the server with this first process.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    return f"{pid}-{_started(pid)}"


def pid_of(name: str) -> int | None:
    """Return the process id in a server's name, or None for any other name."""
    result = _NAME.fullmatch(name)
    return int(result[1]) if result else None


def is_running(name: str) -> bool:
    """Tell whether the server with a name runs."""
    pid = pid_of(name)
    try:
        return pid is not None and name == name_of(pid)
    except psutil.NoSuchProcess:
        return False


def _started(pid: int) -> int:
    """Return when a process started: in ticks since the machine did, which no change of its clock moves."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it has ended, or the system is not Linux
        return round(psutil.Process(pid).create_time())
    return int(fields[_STARTED_AT])
