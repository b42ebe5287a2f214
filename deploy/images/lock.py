"""Write the lock of each image: every package with its version and the sha256 of each file that the index offers.

Usage: .venv/bin/python deploy/images/lock.py, or `make lock`. Versions are those of constraints.txt. torch is in no
lock: its builds for CPU and CUDA differ, so the trainer image installs it in a step of its own.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from platform_assets.serving.run.build import PACKAGES

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
PLATFORM = ("aws", "kubernetes", "serve")
"""The extras of the platform image, which has Dagster's webserver too."""
WEBSERVER = ("dagster-webserver>=1.13.27,<1.14",)
ONLY_IN_STEPS = {"nvidia-ml-py", "onnx", "onnxscript", "torch"}
"""Dependencies of the project that only a step imports. nvidia-ml-py stays in as a dependency of bentoml."""
TOOLS = ["cyclonedx-bom==7.5.0", "cyclonedx-python-lib[json-validation]"]
"""What writes and validates an image's SBOM; in no image."""


def requirements() -> dict[str, list[str]]:
    """Return the direct requirements by lock."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    declared, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]
    lines = {*declared, *(line for name in PLATFORM for line in extras[name]), *WEBSERVER}
    platform = sorted(line for line in lines if _name(line) not in ONLY_IN_STEPS)
    steps = [line for line in project["dependency-groups"]["trainer"] if _name(line) != "torch"]
    return {"platform": platform, "trainer": [*steps, *_of_torch()], "service": list(PACKAGES), "sbom": TOOLS}


def write(lock: str, lines: list[str]) -> None:
    """Resolve requirements by constraints.txt and write the lock."""
    argv = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"),
        *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"),
        *("--constraint", "constraints.txt", "--output-file", str(FOLDER / f"{lock}.lock"), "-"),
    ]
    subprocess.run(argv, cwd=REPOSITORY, input="\n".join(lines), text=True, check=True)


def _of_torch() -> list[str]:
    """Return what torch needs, without what only its CUDA builds bring: constraints.txt has no pin for that."""
    pins = {
        _name(line)
        for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    needed = [line for line in importlib.metadata.requires("torch") or [] if "extra ==" not in line]
    return [_name(line) for line in needed if _name(line) in pins]


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;~!\s]", requirement)[0]).lower()


if __name__ == "__main__":
    for lock, lines in requirements().items():
        write(lock, lines)
