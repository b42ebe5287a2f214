#!/usr/bin/env bash
# Validate what deploy/ holds, the same on a laptop and in CI. Needs `make setup` and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python - <<'PYTHON'
import shutil
import tempfile
from pathlib import Path

import yaml
from dagster import DagsterInstance

files = sorted([*Path("deploy").rglob("*.y*ml"), *Path(".github").rglob("*.y*ml"), Path("workspace.yaml")])
for file in files:
    with file.open(encoding="utf-8") as text:
        if not all(isinstance(document, dict) for document in yaml.safe_load_all(text)):
            raise SystemExit(f"{file} holds a document that is no mapping.")
print(f"yaml: {len(files)} files parse")

with tempfile.TemporaryDirectory() as home:
    shutil.copy("deploy/dagster/dagster.yaml", home)
    with DagsterInstance.from_config(home) as instance:
        if instance.telemetry_enabled or instance.nux_enabled:
            raise SystemExit("deploy/dagster/dagster.yaml: telemetry and nux must be disabled.")
        if not instance.run_monitoring_enabled:
            raise SystemExit("deploy/dagster/dagster.yaml: run_monitoring must be enabled.")
        print(f"dagster.yaml: loads, {type(instance.run_launcher).__name__}, {type(instance.run_coordinator).__name__}")
PYTHON
