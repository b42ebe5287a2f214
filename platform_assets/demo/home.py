"""Make Dagster's home on this machine: the folder of its runs and events, with the repository's `dagster.yaml`."""

from __future__ import annotations

from pathlib import Path

from platform_assets.settings import REPOSITORY, Settings

SOURCE = REPOSITORY / "deploy" / "dagster" / "dagster.yaml"


def prepare(settings: Settings) -> Path:
    """Make the home unless it is there, with the newest `dagster.yaml`, and return it."""
    place = settings.dagster_home / SOURCE.name
    place.parent.mkdir(parents=True, exist_ok=True)
    wanted = SOURCE.read_bytes()
    if not place.exists() or place.read_bytes() != wanted:
        waiting = place.with_suffix(".waiting")
        waiting.write_bytes(wanted)
        waiting.replace(place)
    return settings.dagster_home
