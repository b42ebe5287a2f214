#!/usr/bin/env bash
# Validate what deploy/ holds, the same on a laptop and in CI. Needs `make setup` and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python - <<'PYTHON'
import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import yaml
from dagster import DagsterInstance
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config

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

# Without a cluster and a database: the file as Dagster reads it, and each part's own settings against its class.
place = Path("deploy/dagster/cluster")
for name in re.findall(r"env: (\w+)", (place / "dagster.yaml").read_text(encoding="utf-8")):
    os.environ[name] = "1"
config, _ = dagster_instance_config(str(place))
parts = [
    ("dagster_postgres", "DagsterPostgresStorage", config["storage"]["postgres"]),
    *((config[name]["module"], config[name]["class"], config[name]["config"]) for name in ("run_launcher", "compute_logs")),
]
for module, kind, given in parts:
    checked = process_config(resolve_to_config_type(getattr(importlib.import_module(module), kind).config_type()), given)
    if not checked.success:
        raise SystemExit(f"{place}/dagster.yaml, {kind}: {'; '.join(error.message for error in checked.errors)}")
secrets = [config["storage"]["postgres"]["postgres_db"][name] for name in ("username", "password")]
if not all(isinstance(each, dict) and set(each) == {"env"} for each in secrets):
    raise SystemExit(f"{place}/dagster.yaml: PostgreSQL's user and password must be `env:` references.")
if config["telemetry"]["enabled"] or config["nux"]["enabled"] or not config["run_monitoring"]["enabled"]:
    raise SystemExit(f"{place}/dagster.yaml: telemetry and nux must be disabled, run_monitoring enabled.")
print(f"cluster/dagster.yaml: {', '.join(kind for _, kind, _ in parts)} take their settings")
PYTHON
