"""Create Dagster's home on this machine: the folder of its runs and events, with the repository's `dagster.yaml`."""

from __future__ import annotations

from pathlib import Path

from platform_assets.settings import REPOSITORY, Settings

SOURCE = REPOSITORY / "deploy" / "dagster" / "dagster.yaml"


def prepare(settings: Settings) -> Path:
    """Create the home if it is missing, renew its `dagster.yaml`, and return the folder."""
    path = settings.dagster_home / SOURCE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = SOURCE.read_bytes()
    if not path.exists() or path.read_bytes() != content:
        waiting = path.with_suffix(".waiting")
        waiting.write_bytes(content)
        waiting.replace(path)
    return settings.dagster_home
