"""The same loop on one machine: jobs as processes of a checkout, the Bento under `bentoml serve`, files in a folder."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platform_assets.base.settings import Settings

OURS = ("DRIFTLINE_", "AWS_", "DAGSTER_", "KUBECONFIG")


@dataclass(frozen=True)
class Laptop:
    """A checkout whose only product is a test's, and a state folder.

    Attributes:
        checkout: in which jobs run.
        variables: more of their environment.
    """

    checkout: Path
    state: Path
    product: str
    variables: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return Settings.from_environment({"DRIFTLINE_STATE": str(self.state)})

    def job(self, verb: str, *keys: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        command = [sys.executable, "-m", "tests.doubles.laptop", verb, self.product, *keys]
        places = {"PYTHONPATH": str(self.checkout), "DRIFTLINE_STATE": str(self.state)}
        environment = {**inherited, **self.variables, **places}
        ended = subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-8000:]
