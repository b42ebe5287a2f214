"""Start runs on this machine as copies of a process that has imported their libraries.

Dagster's own launcher has the code server start a new Python per run, and importing the libraries takes as much CPU as
a short run itself. Python's fork server imports them once, with the first run (`preloaded`). A run still executes the
files as they are when it begins, as the digests in its records say.

No issue of Dagster about the processes of runs is known; those of steps have dagster-io/dagster#8638. Written for
dagster 1.13.27 and tested with it. `enabled: false` in `deploy/dagster/dagster.yaml` turns it off.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TYPE_CHECKING, Any

import dagster as dg
import psutil

from platform_assets.base.settings import ONLY_PRODUCT
from platform_assets.instance import own_runs

if TYPE_CHECKING:
    from dagster._core.launcher import LaunchRunContext

LIBRARIES = (
    "dagster._cli.api",
    "dagster._core.executor.in_process",
    "dagster._daemon.cli",
)
"""Of Dagster, what runs import besides `preloaded`."""
PROCESS = ".dagster/driftline_process"
"""Tag of a run: id and creation time of its process."""


class CopyingLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher of runs as processes of this machine, which copies a prepared one."""

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the setting."""
        return {"enabled": dg.Field(bool, default_value=True, description="false: Dagster's own launcher")}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """Return this launcher, or Dagster's own if it is turned off or this is not Linux."""
        is_used = config_value["enabled"] and sys.platform == "linux"
        return (cls if is_used else dg.DefaultRunLauncher)(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process, and note which it is in the run's tags."""
        from dagster._grpc.types import ExecuteRunArgs

        run = context.dagster_run
        assert run.job_code_origin is not None  # Dagster submits no run without
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref())
        process = copied(_execute, dg.serialize_value(arguments), own_runs.only_product(run) or "")
        process.start()
        assert process.pid is not None
        made_at_s = psutil.Process(process.pid).create_time()
        self._instance.add_run_tags(run.run_id, {PROCESS: f"{process.pid} {made_at_s}"})
        Thread(target=self._watch, args=(run.run_id, process), name=f"run {run.run_id}", daemon=True).start()

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run's process; return whether the run was under way."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or PROCESS not in run.tags:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        pid, made_at_s = run.tags[PROCESS].split()
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid))
            if process.create_time() == float(made_at_s):  # the number may be another process's by now
                process.send_signal(signal.SIGINT)  # as Dagster's code server does
        return True

    def _watch(self, run_id: str, process: BaseProcess) -> None:
        """Fail the run if its process ends without an end of the run, as when it was killed."""
        from dagster._utils import get_run_crash_explanation

        process.join()
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            explanation = get_run_crash_explanation(f"Run execution process for {run_id}", process.exitcode or 0)
            self._instance.report_engine_event(explanation, run, cls=type(self))
            self._instance.report_run_failed(run)


def copied(target: Callable[..., object], *arguments: str) -> BaseProcess:
    """Return a process, not started yet, that will be a copy of the fork server."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*LIBRARIES, "platform_assets.instance.preloaded"])
    return server.Process(target=target, args=arguments)


def _execute(arguments: str, product: str) -> None:
    from dagster._cli.api import execute_run_command

    from platform_assets.instance import local_storage, preloaded

    if product:
        os.environ[ONLY_PRODUCT] = product
    if preloaded.changed():  # this package was edited or updated under a running daemon
        os.execv(sys.executable, [sys.executable, "-m", "dagster", "api", "execute_run", arguments])
    try:
        execute_run_command.main([arguments], standalone_mode=False)
    finally:
        local_storage.close()  # a copy ends without `atexit`
