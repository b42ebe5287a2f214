"""Open Dagster's UI on a state until the command ends: `driftline dev`.

`dagster dev` runs on a leash, so it also ends on SIGTERM when a script started it in the background: a background
process ignores SIGINT, and Dagster would handle SIGTERM as it handles SIGINT.
"""

from __future__ import annotations

import contextlib

from platform_assets.base.settings import Settings
from platform_assets.demo import servers, state_lock
from platform_assets.demo.processes import Children


def run(settings: Settings) -> int:
    """Run webserver and daemon until they end, Ctrl-C or SIGTERM, and return the exit status: 130 after Ctrl-C.

    Raises:
        StateInUse: a demo or another UI uses the state.
    """
    environment = settings.replace(broken_products="show").child_environment()
    with (
        contextlib.suppress(KeyboardInterrupt),
        state_lock.held(settings, "driftline dev") as lock,
        Children(environment, settings.state / "logs", keeps=(lock,)) as children,
    ):
        return servers.dagster_dev(settings, children, is_shown=True).leash.wait()
    return 130
