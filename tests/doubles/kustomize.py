"""What `kubectl kustomize` makes of deploy/kubernetes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from platform_assets.base.settings import REPOSITORY

FOLDER = REPOSITORY / "deploy/kubernetes"
MISSING = "needs kubectl in KUBEBUILDER_ASSETS or the search path: apt-get install kubectl"


def kubectl() -> str | None:
    return shutil.which("kubectl", path=os.environ.get("KUBEBUILDER_ASSETS")) or shutil.which("kubectl")


def rendered(folder: Path) -> list[dict[str, Any]]:
    program = kubectl()
    assert program is not None, MISSING
    ended = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return list(yaml.safe_load_all(ended.stdout))


def strings(value: Any) -> Iterator[str]:
    """Yield the strings in an object, without its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the specs of pods in an object or a list of them, also those in templates."""
    if isinstance(value, dict) and "containers" in value:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from pod_specs(inner)
