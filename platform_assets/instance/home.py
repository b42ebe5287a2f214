"""Dagster's home on this machine, the folder of its runs and events: ours in a checkout, in another project its own."""

from __future__ import annotations

import json
from pathlib import Path

from platform_assets.base.settings import REPOSITORY, Settings, dagster_home_named

SOURCE = REPOSITORY / "deploy" / "dagster" / "dagster.yaml"


def existing(settings: Settings) -> Path | None:
    """Return the home of the Dagster that runs the products, None without one or on a cluster."""
    if SOURCE.exists():
        return settings.dagster_home if (settings.dagster_home / SOURCE.name).exists() else None
    return dagster_home_named() if settings.environment == "local" else None


def prepare(settings: Settings) -> Path:
    """Create the home if it is missing, renew its `dagster.yaml`, and return the folder.

    Raises:
        ValueError: this is not a checkout, and `DAGSTER_HOME` names no home; another project's own is left as it is.
    """
    if not SOURCE.exists():
        if (own := existing(settings)) is None:
            raise ValueError("DAGSTER_HOME is not set; set it to the folder of your project's Dagster.")
        return own
    path = settings.dagster_home / SOURCE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    # DAGSTER_HOME may be another folder where the file is read. A JSON text is a YAML text.
    folder = json.dumps(str(settings.dagster_home.absolute()))
    content = SOURCE.read_text(encoding="utf-8").replace("{env: DAGSTER_HOME}", folder)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        waiting = path.with_suffix(".waiting")
        waiting.write_text(content, encoding="utf-8")
        waiting.replace(path)
    return settings.dagster_home
