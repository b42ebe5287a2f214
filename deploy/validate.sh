#!/usr/bin/env bash
# Validate what deploy/ holds, the same on a laptop and in CI. Needs `make setup` and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
for script in deploy/*.sh deploy/*/*.sh; do bash -n "$script"; done

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

from resources.launchers.manifest import SCRATCH, USER

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

# A builder reads the rest; these are the promises that pods and containers rely on.
place = Path("deploy/images/trainer.Dockerfile")
lines = [line.strip() for line in place.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()]
told = {word: [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{word} ")] for word in ("FROM", "USER", "RUN")}
if told["FROM"] != ["${BASE}"]:
    raise SystemExit(f"{place}: builds from {told['FROM']}; expected ${{BASE}} alone, so that a build says which.")
if told["USER"] != [f"{USER}:{USER}"]:
    raise SystemExit(f"{place}: ends as user {told['USER']}; expected {USER}:{USER}, as resources/launchers/manifest.py.")
if not any("--constraint" in each and "--no-cache-dir" in each for each in told["RUN"]):
    raise SystemExit(f"{place}: installs without `--constraint` or with a cache; every version is in constraints.txt.")
if not any(SCRATCH in each.split() and "mkdir" in each for each in told["RUN"]):
    raise SystemExit(f"{place}: makes no {SCRATCH}, where a step may write.")
print(f"trainer.Dockerfile: user {USER}, {SCRATCH}, pinned versions")
PYTHON
