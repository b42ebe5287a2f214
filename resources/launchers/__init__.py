"""Start a step outside of the orchestrator and bring its result back: one interface, a launcher a place.

Belongs here: processes, containers and pods, their environment, what their end means, and the record of each try. Does
not belong here: what a step computes, which keys it reads, or anything of a product: a step is told all of it through
Pipes.
"""

from __future__ import annotations

from platform_assets.settings import Settings
from resources.launchers.container import ContainerLauncher
from resources.launchers.endings import Work
from resources.launchers.local import SubprocessLauncher
from resources.launchers.tries import RESULT, StepFailure, StepLauncher

__all__ = ["RESULT", "ContainerLauncher", "StepFailure", "StepLauncher", "SubprocessLauncher", "Work", "launcher"]


def launcher(settings: Settings) -> StepLauncher:
    """Return the launcher that the settings ask for.

    Raises:
        SettingsProblem: what it needs is not set, or not by digest, or not on this machine.
    """
    if settings.launcher == "subprocess":
        return SubprocessLauncher(settings)
    if settings.launcher == "kubernetes":
        from resources.launchers.kubernetes import KubernetesLauncher

        return KubernetesLauncher(settings)
    return ContainerLauncher(settings)
