"""Start a step outside the orchestrator and bring its result back: one interface, one launcher per kind of host.

A launcher knows processes and pods, what their end means, and records each try. It knows nothing about products: a
step gets all of that through Pipes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from platform_assets.base.settings import Settings
from platform_assets.launch.local import SubprocessLauncher
from platform_assets.launch.tries import RESULT, StepFailure, StepLauncher

__all__ = ["KINDS", "RESULT", "StepFailure", "StepLauncher", "SubprocessLauncher", "launcher"]

KINDS = {
    "subprocess": "platform_assets.launch.local:SubprocessLauncher",
    "kubernetes": "platform_assets.kubernetes.launcher:KubernetesLauncher",
}
"""By the setting `launcher`: module and class, which is imported when it is chosen."""
OF_SEVERAL_NODES = {"kubernetes": "platform_assets.kubernetes.gang.launcher:GangLauncher"}
"""The same for steps on several nodes."""


def launcher(settings: Settings, kinds: Mapping[str, str] = KINDS) -> StepLauncher:
    """Return the launcher that the settings name.

    Raises:
        SettingsProblem: something it needs is not set, has no digest, or is not installed on this machine.
    """
    made = _make(kinds[settings.launcher], settings)
    if settings.launcher in OF_SEVERAL_NODES:
        made.of_several_nodes = _make(OF_SEVERAL_NODES[settings.launcher], settings)
    return made


def _make(path: str, settings: Settings) -> StepLauncher:
    module, _, name = path.partition(":")
    made: StepLauncher = getattr(importlib.import_module(module), name)(settings)
    return made
