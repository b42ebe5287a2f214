"""Run a step as a child process on this machine.

Belongs here: the child, its environment and what its exit code means. Does not belong here: trying again (`tries.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any

import dagster as dg

from platform_assets.settings import REPOSITORY, Settings
from resources.launchers.endings import Budget, Ending, FailureClass, Try
from resources.launchers.tries import Seen, TryingLauncher

_BECOME_STEP = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(143)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""
"""Ask Linux for SIGTERM when the parent dies (PR_SET_PDEATHSIG, which exec keeps), then become the step."""


class SubprocessLauncher(TryingLauncher):
    """Runs a step as a child process on this machine; the profile's size is not enforced, its price is counted.

    The child dies with its parent. A child that was killed or told to stop is started again, because steps resume
    where they stood; one that failed by its own error is not. When the run is cancelled the child gets SIGTERM and
    `grace_s` to save its step in hand.
    """

    name = "subprocess"

    def __init__(self, settings: Settings, *, retries: int = 2, grace_s: float = 60.0) -> None:
        super().__init__(settings)
        self.lost = Budget(tries=retries)
        self.grace_s = grace_s

    def attempt(
        self,
        context: dg.AssetExecutionContext,
        session: dg.PipesSession,
        module: str,
        plan: Try,
        facts: Mapping[str, Any],
        seen: Seen,
    ) -> Ending:
        """Run the child to its end; on an exception, end it."""
        started_at = seen.started_at = datetime.now(UTC)
        with self._child(module, session.get_bootstrap_env_vars()) as child:
            seen.where |= {"host": socket.gethostname(), "pid": child.pid}
            context.log.info(f"{module} runs as process {child.pid}.")
            exit_code = _wait(child, context, seen)
        failure, said = _meaning(exit_code)
        return Ending(
            failure=failure, said=said, exit_code=exit_code, started_at=started_at, ended_at=datetime.now(UTC)
        )

    @contextmanager
    def _child(self, module: str, bootstrap: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-I", "-S", "-c", _BECOME_STEP, str(os.getpid()), module]
        child = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.settings.child_environment(bootstrap),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(self.grace_s)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def _wait(child: subprocess.Popen[str], context: dg.AssetExecutionContext, seen: Seen) -> int:
    """Forward the child's lines to the run's log until it ends; return its exit code."""
    assert child.stdout is not None

    def forward(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                seen.wrote(line.rstrip(), context.log)

    reader = threading.Thread(target=forward, args=(child.stdout,), daemon=True)
    reader.start()
    exit_code = child.wait()
    reader.join(timeout=5)
    return exit_code


def _meaning(exit_code: int) -> tuple[FailureClass | None, str]:
    """Return what an exit code of this machine means; who sent SIGKILL cannot be told, often it was for memory."""
    if exit_code == 0:
        return None, "it finished"
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed", "its process got SIGKILL, often for want of memory"
    if exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return "preempted", "its process got SIGTERM"
    return "code", "its process ended by itself"
