"""Create Dagster's home on this machine: the folder of its runs and events, with the repository's `dagster.yaml`."""

from __future__ import annotations

import json
from pathlib import Path

from platform_assets.base.settings import REPOSITORY, Settings

SOURCE = REPOSITORY / "deploy" / "dagster" / "dagster.yaml"


def prepare(settings: Settings) -> Path:
    """Create the home if it is missing, renew its `dagster.yaml`, and return the folder."""
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
