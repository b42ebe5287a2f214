"""Start a step outside of the orchestrator and bring its result back: one interface, a launcher a place.

Belongs here: processes, their environment, and what their end means. Does not belong here: what a step computes,
which keys it reads, or anything of a product: a step is told all of it through Dagster Pipes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Any, Literal

import dagster as dg

from platform_assets.profiles import StepProfile
from platform_assets.settings import REPOSITORY, Settings, SettingsProblem

FailureKind = Literal["code", "killed", "preempted"]
RESULT = "result"
LAST_LINES = 20

_BECOME_STEP = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(143)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""
"""Ask Linux for SIGTERM when the parent dies (PR_SET_PDEATHSIG, which exec keeps), then become the step."""


class StepFailure(dg.Failure):
    """A step that ended without a result.

    Attributes:
        kind: `code` (its own error: never tried again), `killed` (SIGKILL: often memory) or `preempted` (SIGTERM).
        exit_code: of the process; negative for a signal.
        last_lines: what it wrote last.
    """

    def __init__(self, module: str, kind: FailureKind, exit_code: int, last_lines: list[str]) -> None:
        self.kind = kind
        self.exit_code = exit_code
        self.last_lines = last_lines
        text = "\n".join(last_lines) or "(it wrote nothing)"
        super().__init__(
            description=f"{module} {_ENDS[kind]} (exit code {exit_code}). It wrote last:\n{text}",
            metadata={
                "failure_kind": kind,
                "exit_code": exit_code,
                "last_lines": dg.MetadataValue.md(f"```\n{text}\n```"),
            },
            allow_retries=False,
        )


_ENDS: dict[FailureKind, str] = {
    "code": "failed",
    "killed": "was killed",
    "preempted": "was told to stop",
}


class StepLauncher(dg.PipesClient):
    """What every launcher offers: run a step's module, wait, return its result."""

    @abstractmethod
    def run(  # type: ignore[override]  # a step's result is one JSON object, not a stream of Dagster's events
        self,
        *,
        context: dg.AssetExecutionContext,
        module: str,
        extras: Mapping[str, Any] | None = None,
        profile: StepProfile | None = None,
    ) -> dict[str, Any]:
        """Run `python -m {module}` and return the payload of its last custom message of kind `result`.

        Args:
            context: of the asset that waits; the step's log lines and Pipes messages appear in its run.
            module: `platform_assets.steps.train`.
            extras: what the step is told; JSON values.
            profile: the size to run in.

        Raises:
            StepFailure: the step ended without a result, after the retries that its kind of end allows.
        """


class SubprocessLauncher(StepLauncher):
    """Runs a step as a child process on this machine; the profile's size is not enforced.

    The child dies with its parent. A child that was killed or told to stop is started again, because steps resume
    where they stood; one that failed by its own error is not. When the run is cancelled the child gets SIGTERM and
    `grace_s` to save its step in hand.
    """

    def __init__(self, settings: Settings, *, retries: int = 2, grace_s: float = 60.0) -> None:
        self.settings = settings
        self.retries = retries
        self.grace_s = grace_s

    def run(  # type: ignore[override]  # as above
        self,
        *,
        context: dg.AssetExecutionContext,
        module: str,
        extras: Mapping[str, Any] | None = None,
        profile: StepProfile | None = None,
    ) -> dict[str, Any]:
        for retry in range(self.retries + 1):
            try:
                return self._run_once(context, module, extras)
            except StepFailure as failure:
                if failure.kind == "code" or retry == self.retries:
                    raise
                context.log.warning(f"{failure.description}\nIt is started again ({retry + 1} of {self.retries}).")
        raise AssertionError("unreachable: the last retry raises")

    def _run_once(
        self, context: dg.AssetExecutionContext, module: str, extras: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        last_lines: deque[str] = deque(maxlen=LAST_LINES)
        with (
            _pipes(context, extras or {}) as session,
            self._child(module, session.get_bootstrap_env_vars()) as child,
        ):
            context.log.info(f"{module} runs as process {child.pid}.")
            exit_code = _wait(child, context, last_lines)
        for message in reversed(session.message_handler.get_custom_messages()):
            if exit_code == 0 and isinstance(message, dict) and message.get("kind") == RESULT:
                return message
        raise StepFailure(module, _kind(exit_code), exit_code, list(last_lines))

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


def launcher(settings: Settings) -> StepLauncher:
    """Return the launcher that the settings ask for.

    Raises:
        SettingsProblem: a launcher that this version does not have.
    """
    if settings.launcher == "subprocess":
        return SubprocessLauncher(settings)
    raise SettingsProblem(
        f"DRIFTLINE_LAUNCHER is {settings.launcher!r}; this version starts steps only by 'subprocess'. "
        "Unset DRIFTLINE_LAUNCHER, or set it to subprocess."
    )


@contextmanager
def _pipes(context: dg.AssetExecutionContext, extras: Mapping[str, Any]) -> Iterator[dg.PipesSession]:
    """Open a Pipes session, silent about the preview method that Dagster itself calls on the way."""
    with ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)
            session = stack.enter_context(
                dg.open_pipes_session(
                    context=context.op_execution_context,
                    context_injector=dg.PipesTempFileContextInjector(),
                    message_reader=dg.PipesTempFileMessageReader(),
                    extras=dict(extras),
                )
            )
        yield session


def _wait(child: subprocess.Popen[str], context: dg.AssetExecutionContext, last_lines: deque[str]) -> int:
    """Forward the child's lines to the run's log until it ends; return its exit code."""
    assert child.stdout is not None

    def forward(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                last_lines.append(line.rstrip())
                context.log.info(line.rstrip())

    reader = threading.Thread(target=forward, args=(child.stdout,), daemon=True)
    reader.start()
    exit_code = child.wait()
    reader.join(timeout=5)
    return exit_code


def _kind(exit_code: int) -> FailureKind:
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed"
    if exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return "preempted"
    return "code"
