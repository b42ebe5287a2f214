"""Run a step as a child process on this machine.

Belongs here: the child's command and what its exit code means. Does not belong here: how a child is started, heard and
ended (`foreground.py`), or trying again (`tries.py`).
"""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime

from platform_assets.failures import Budget
from platform_assets.records.attempts import ProcessLocation
from platform_assets.settings import Settings
from resources.launchers import foreground
from resources.launchers.attempt import Attempt
from resources.launchers.endings import Ending, of_exit
from resources.launchers.tries import TryingLauncher


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

    def attempt(self, this: Attempt) -> Ending:
        """Run the child to its end; on an exception, end it."""
        started_at = this.seen.started_at = datetime.now(UTC)
        environment = self.settings.child_environment(this.session.get_bootstrap_env_vars())
        with foreground.child([sys.executable, "-m", this.module], environment, grace_s=self.grace_s) as child:
            this.seen.where = ProcessLocation(host=socket.gethostname(), pid=child.pid)
            this.context.log.info(f"{this.module} runs as process {child.pid}.")
            exit_code = foreground.wait(child, this)
        assert exit_code is not None  # its time is unlimited
        # Who sent SIGKILL cannot be told.
        failure, said = of_exit(exit_code, "its process", killed="often for want of memory")
        return Ending(
            failure=failure, said=said, exit_code=exit_code, started_at=started_at, ended_at=datetime.now(UTC)
        )
