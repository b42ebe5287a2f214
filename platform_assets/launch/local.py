"""Run a step as a child process on this machine, which dies with this process; a container's program is one too."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from platform_assets.base.failures import Budget
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.launch.attempt import Launched, StepRequest
from platform_assets.launch.endings import Ending, of_exit
from platform_assets.launch.tries import TryingLauncher
from platform_assets.store.records.attempts import ProcessLocation

POLL_S = 0.05
AGAIN_S = 2.0
"""Seconds between two SIGTERMs: a container's first process ignores the signal until it has installed a handler."""

_BECOME = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Ask Linux for SIGTERM when the parent dies (PR_SET_PDEATHSIG, which exec keeps), then become the command."""


@contextmanager
def child(
    command: Sequence[str], environment: Mapping[str, str], *, grace_s: float, folder: Path = REPOSITORY
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a folder; when the block ends, ask it to stop, and kill it after `grace_s`."""
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
    )
    try:
        yield started
    finally:
        until_s = time.monotonic() + grace_s
        while started.poll() is None and (left_s := until_s - time.monotonic()) > 0:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(min(AGAIN_S, left_s))
        if started.poll() is None:
            started.kill()
            started.wait()


def wait(process: subprocess.Popen[str], launched: Launched, *, timeout_s: float | None = None) -> int | None:
    """Forward the child's lines to the run's log until it ends; return its exit code, None after the timeout."""
    assert process.stdout is not None

    def forward(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                launched.observation.add_line(line.rstrip(), launched.log)

    reader = threading.Thread(target=forward, args=(process.stdout,), daemon=True)
    reader.start()
    until_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > until_s:
            return None
        launched.request.pause(POLL_S)
    reader.join(timeout=5)
    return process.wait()


class SubprocessLauncher(TryingLauncher):
    """Runs a step as a child process on this machine; the profile's size is not enforced, its price is charged.

    The child dies with its parent. A child that was killed or asked to stop is started again, because steps resume
    where they stopped; one that failed by its own error is not. When the run is cancelled, the child gets SIGTERM and
    `grace_s` to save its current step.
    """

    name = "subprocess"

    def __init__(self, settings: Settings, *, retries: int = 2, grace_s: float = 60.0) -> None:
        super().__init__(settings)
        self.lost = Budget(tries=retries)
        self.grace_s = grace_s

    def check(self, request: StepRequest) -> None:
        """Say that a profile's own image is not used here."""
        size = request.plan.profile
        if size.image is not None:
            request.context.log.warning(
                f"profile {size.name} has an image of its own, {size.image}, which a process of this machine cannot "
                "use: the step runs with the packages installed here. Set DRIFTLINE_LAUNCHER to container to use it."
            )

    def run_to_end(self, launched: Launched) -> Ending:
        """Run the child to its end; on an exception, stop it."""
        module, observation = launched.request.module, launched.observation
        started_at = observation.started_at = datetime.now(UTC)
        variables = launched.session.get_bootstrap_env_vars()
        if launched.size.gpu_memory_gb is not None:
            variables = {**variables, "DRIFTLINE_GPU_MEMORY_GB": f"{launched.size.gpu_memory_gb}"}
        environment = self.settings.child_environment(variables)
        own = launched.size.arguments(module, grace_s=self.grace_s, is_shared=launched.request.is_shared)
        with child([sys.executable, *own], environment, grace_s=self.grace_s) as process:
            observation.location = ProcessLocation(host=socket.gethostname(), pid=process.pid)
            launched.log.info(f"{module} runs as process {process.pid}.")
            exit_code = wait(process, launched)
        assert exit_code is not None  # no timeout
        # Who sent SIGKILL cannot be known.
        failure, evidence = of_exit(exit_code, "its process", killed="often for lack of memory")
        return Ending(
            failure=failure, evidence=evidence, exit_code=exit_code, started_at=started_at, ended_at=datetime.now(UTC)
        )
