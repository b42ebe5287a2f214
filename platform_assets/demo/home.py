"""Create Dagster's home on this machine: the folder of its runs and events, with the repository's `dagster.yaml`."""

from __future__ import annotations

import json
from pathlib import Path

from platform_assets.settings import REPOSITORY, Settings

SOURCE = REPOSITORY / "deploy" / "dagster" / "dagster.yaml"
STORAGE = """
# Added by Driftline: needs this folder's path, and DAGSTER_HOME may be another one where this file is read.
storage:
  custom:
    module: resources.local_storage
    class: LocalStorage
    config:
      base_dir: {folder}
"""


def prepare(settings: Settings) -> Path:
    """Create the home if it is missing, renew its `dagster.yaml`, and return the folder."""
    path = settings.dagster_home / SOURCE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    # A JSON text is a YAML text.
    storage = STORAGE.format(folder=json.dumps(str(settings.dagster_home.absolute())))
    content = SOURCE.read_bytes() + storage.encode()
    if not path.exists() or path.read_bytes() != content:
        waiting = path.with_suffix(".waiting")
        waiting.write_bytes(content)
        waiting.replace(path)
    return settings.dagster_home
