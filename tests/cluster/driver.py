"""A run of a step in a process of its own, which a test may kill: python -m tests.cluster.driver END...

Settings and the cluster's kubeconfig come from the environment, as `StepRuns.process_environment` gives it.
"""

from __future__ import annotations

import sys

from platform_assets.settings import Settings
from resources.launchers.kubernetes import KubernetesLauncher
from tests.cluster.step_runs import run_step


def main() -> None:
    """Run it to its end."""
    settings = Settings.from_environment()
    run_step(KubernetesLauncher(settings), f"{settings.root}/marks", sys.argv[1:])


if __name__ == "__main__":
    main()
