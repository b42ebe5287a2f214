"""Start runs on this machine as copies of a process that has imported their libraries.

Dagster's code server starts a new Python per run, and importing the libraries takes as much CPU as a short run itself.
Python's fork server imports them once, with the first run. It knows nothing of this repository: a run still executes
the files as they are when it begins, as the digests in its records say.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

LIBRARIES = (
    "dagster",
    "dagster._cli",
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "dagster._grpc.impl",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "msgspec",
    "rich.console",
)
"""What runs import, without what starts threads when it is imported: a copy would lack them (Polars, deltalake)."""


def install() -> None:
    """Make the code server in this process start runs as copies of the fork server; nothing changes outside Linux."""
    if sys.platform == "linux":
        multiprocessing.get_context("spawn").Process = _process  # type: ignore[assignment, misc]  # a class there


def copied(target: Callable[..., object], arguments: Sequence[Any]) -> BaseProcess:
    """Return a process, not started yet, that will be a copy of the fork server."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(LIBRARIES))
    return server.Process(target=target, args=tuple(arguments))


def _process(*, target: Callable[..., object], args: Sequence[Any] = (), **options: Any) -> BaseProcess:
    from dagster._grpc.impl import start_run_in_subprocess

    if target is start_run_in_subprocess and not options:
        return copied(target, args)
    return SpawnProcess(target=target, args=tuple(args), **options)
