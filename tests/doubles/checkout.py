"""Copy the sources into a separate checkout, where a test may add a product's file and run commands."""

import shutil
import subprocess
import sys
from pathlib import Path


def copied(repository: Path, folder: Path) -> Path:
    """Copy the sources, committed or not, and link the installed packages into the copy."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder
