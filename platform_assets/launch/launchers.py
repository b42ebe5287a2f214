"""Start a step outside the orchestrator and bring its result back: one interface, one launcher per kind of host.

A launcher knows processes, containers and pods, what their end means, and records each try. It knows nothing about
products: a step gets all of that through Pipes.
"""

from __future__ import annotations

from platform_assets.settings import Settings
from resources.launchers.container import ContainerLauncher
from resources.launchers.endings import Work
from resources.launchers.local import SubprocessLauncher
from resources.launchers.tries import RESULT, StepFailure, StepLauncher

__all__ = ["RESULT", "ContainerLauncher", "StepFailure", "StepLauncher", "SubprocessLauncher", "Work", "launcher"]


def launcher(settings: Settings) -> StepLauncher:
    """Return the launcher that the settings name.

    Raises:
        SettingsProblem: something it needs is not set, has no digest, or is not installed on this machine.
    """
    if settings.launcher == "subprocess":
        return SubprocessLauncher(settings)
    if settings.launcher == "kubernetes":
        from resources.launchers.kubernetes import KubernetesLauncher

        return KubernetesLauncher(settings)
    return ContainerLauncher(settings)
