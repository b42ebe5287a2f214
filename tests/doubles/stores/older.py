"""Unpack stores written by earlier versions of the code, for tests of code that reads older records.

`make.py` in this folder describes how each was made.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from platform_assets.settings import Settings

FOLDER = Path(__file__).parent
WHOLE = "hourly_temperature"
"""The store with its rows; of the others there are ledgers, partition records, manifests and bundles."""
NAMES = tuple(sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz")))


def unpacked(name: str, folder: Path) -> Settings:
    """Return settings whose root and state are a copy of a store, in a folder of the caller's own."""
    with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    settings = Settings(root=str(folder / "store"), state=folder / "state")
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    return settings
