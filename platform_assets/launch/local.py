"""Run a step as a child process on this machine."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime

from platform_assets.base.failures import Budget
from platform_assets.base.settings import Settings
from platform_assets.launch import foreground
from platform_assets.launch.attempt import Attempt
from platform_assets.launch.endings import Ending, of_exit
from platform_assets.launch.tries import StepRequest, TryingLauncher
from platform_assets.store.records.attempts import ProcessLocation


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

    def attempt(self, attempt: Attempt) -> Ending:
        """Run the child to its end; on an exception, stop it."""
        started_at = attempt.observation.started_at = datetime.now(UTC)
        environment = self.settings.child_environment(attempt.session.get_bootstrap_env_vars())
        with foreground.child([sys.executable, "-m", attempt.module], environment, grace_s=self.grace_s) as child:
            attempt.observation.location = ProcessLocation(host=socket.gethostname(), pid=child.pid)
            attempt.context.log.info(f"{attempt.module} runs as process {child.pid}.")
            exit_code = foreground.wait(child, attempt)
        assert exit_code is not None  # no timeout
        # Who sent SIGKILL cannot be known.
        failure, evidence = of_exit(exit_code, "its process", killed="often for lack of memory")
        return Ending(
            failure=failure, evidence=evidence, exit_code=exit_code, started_at=started_at, ended_at=datetime.now(UTC)
        )
