"""Run a step as a child process on this machine, which dies with this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import IO

from platform_assets.base.failures import Budget
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.launch.attempt import Launched, Prepared, StepRequest
from platform_assets.launch.endings import Ending, of_exit
from platform_assets.launch.tries import TryingLauncher
from platform_assets.store.records.attempts import ProcessLocation

POLL_S = 0.05

_BECOME = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Ask Linux for SIGTERM when the parent dies (PR_SET_PDEATHSIG, which exec keeps), then become the command."""


@contextmanager
def child(command: Sequence[str], environment: Mapping[str, str], *, grace_s: float) -> Iterator[subprocess.Popen[str]]:
    """Start a command; when the block ends, ask it to stop, and kill it after `grace_s`."""
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command],
        cwd=REPOSITORY,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",  # a step may write any bytes
        bufsize=1,
    )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(grace_s)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


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

    def find(self, request: StepRequest, prepared: Prepared) -> tuple[StepRequest, Prepared]:
        """Find nothing, for a child dies with its run; say that a profile's own image is not used here."""
        size = request.plan.profile
        if size.image is not None:
            request.context.log.warning(
                f"profile {size.name} has an image of its own, {size.image}, which a process of this machine cannot "
                "use: the step runs with the packages installed here. Set DRIFTLINE_LAUNCHER to kubernetes to use it."
            )
        return request, prepared

    def run_to_end(self, launched: Launched) -> AbstractContextManager[Ending]:
        """Run the child to its end, and forward its lines to the run's log; on an exception, stop it."""
        module, observation = launched.request.module, launched.observation

        def forward(stream: IO[str]) -> None:
            with stream:
                for line in stream:
                    observation.add_line(line.rstrip(), launched.log)

        started_at = observation.started_at = datetime.now(UTC)
        variables = launched.session.get_bootstrap_env_vars()
        if launched.size.gpu_memory_gb is not None:
            variables = {**variables, "DRIFTLINE_GPU_MEMORY_GB": f"{launched.size.gpu_memory_gb}"}
        environment = self.settings.child_environment(variables)
        own = launched.size.arguments(module, grace_s=self.grace_s, is_shared=launched.request.is_shared)
        with child([sys.executable, *own], environment, grace_s=self.grace_s) as process:
            observation.location = ProcessLocation(host=socket.gethostname(), pid=process.pid)
            launched.log.info(f"{module} runs as process {process.pid}.")
            reader = threading.Thread(target=forward, args=(process.stdout,), daemon=True)
            reader.start()
            while (code := process.poll()) is None:
                launched.request.pause(POLL_S)
            reader.join(timeout=5)  # a process that it has started itself may hold the pipe open
        # Who sent SIGKILL cannot be known.
        failure, evidence = of_exit(code, "its process", killed="often for lack of memory")
        ending = Ending(
            failure=failure, evidence=evidence, exit_code=code, started_at=started_at, ended_at=datetime.now(UTC)
        )
        return nullcontext(ending)  # nothing is left of it
