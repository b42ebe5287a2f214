#!/usr/bin/env bash
# Validate the files in deploy/, the same way on a laptop and in CI. Needs only `make setup`.
set -euo pipefail
cd "$(dirname "$0")/.."
for script in deploy/*.sh deploy/*/*.sh; do bash -n "$script"; done

.venv/bin/python - <<'PYTHON'
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml
from dagster import DagsterInstance
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config

from platform_assets.kubernetes.manifest import SCRATCH, USER

files = sorted([*Path("deploy").rglob("*.y*ml"), *Path(".github").rglob("*.y*ml"), Path("workspace.yaml")])
for file in files:
    with file.open(encoding="utf-8") as text:
        if not all(isinstance(document, dict) for document in yaml.safe_load_all(text)):
            raise SystemExit(f"{file} contains a document that is not a mapping.")
print(f"yaml: {len(files)} files parse")

kustomize = os.environ.get("KUBEBUILDER_ASSETS", "") and shutil.which("kubectl", path=os.environ["KUBEBUILDER_ASSETS"])
kustomize = kustomize or shutil.which("kubectl")
texts = {str(file): file.read_text(encoding="utf-8") for file in sorted(Path("deploy/kubernetes/examples").glob("*.yaml"))}
for overlay in sorted(Path("deploy/kubernetes/overlays").iterdir()) if kustomize else []:
    texts[str(overlay)] = subprocess.run([kustomize, "kustomize", str(overlay)], stdout=subprocess.PIPE, text=True, check=True).stdout
for place, text in texts.items():
    for manifest in yaml.safe_load_all(text):
        if not manifest["apiVersion"].startswith("kueue.x-k8s.io/"):  # a real Kueue takes them: tests/cluster/test_gang_rights.py
            kubernetes_validate.validate(manifest, "1.35", strict=True)
print(f"kubernetes: {', '.join(texts)} are valid" + ("" if kustomize else "; the overlays were left out: there is no kubectl"))

with tempfile.TemporaryDirectory() as home:
    shutil.copy("deploy/dagster/dagster.yaml", home)
    os.environ["DAGSTER_HOME"] = home
    with DagsterInstance.from_config(home) as instance:
        if instance.telemetry_enabled or instance.nux_enabled:
            raise SystemExit("deploy/dagster/dagster.yaml: telemetry and nux must be disabled.")
        if not instance.run_monitoring_enabled:
            raise SystemExit("deploy/dagster/dagster.yaml: run_monitoring must be enabled.")
        print(f"dagster.yaml: loads, {type(instance.run_launcher).__name__}, {type(instance.run_coordinator).__name__}")

# Without a cluster and a database: the file as Dagster reads it, and each part's settings against its class.
folder = Path("deploy/kubernetes/base")
for name in re.findall(r"env: (\w+)", (folder / "dagster.yaml").read_text(encoding="utf-8")):
    os.environ[name] = "1"
config, _ = dagster_instance_config(str(folder))
storage = config["storage"]["custom"]
parts = [
    (part["module"], part["class"], part["config"])
    for part in (storage, *(config[name] for name in ("run_launcher", "run_coordinator", "compute_logs")))
]
for module, kind, values in parts:
    checked = process_config(resolve_to_config_type(getattr(importlib.import_module(module), kind).config_type()), values)
    if not checked.success:
        raise SystemExit(f"{folder}/dagster.yaml, {kind}: {'; '.join(error.message for error in checked.errors)}")
secrets = [storage["config"]["postgres_db"][name] for name in ("username", "password")]
if not all(isinstance(secret, dict) and set(secret) == {"env"} for secret in secrets):
    raise SystemExit(f"{folder}/dagster.yaml: PostgreSQL's user and password must be `env:` references.")
if config["telemetry"]["enabled"] or config["nux"]["enabled"] or not config["run_monitoring"]["enabled"]:
    raise SystemExit(f"{folder}/dagster.yaml: telemetry and nux must be disabled, run_monitoring enabled.")
print(f"{folder}/dagster.yaml: {', '.join(kind for _, kind, _ in parts)} accept their settings")

# A builder checks the rest; these are the properties that pods and containers rely on.
dockerfile = Path("deploy/images/Dockerfile")
lines = [line.strip() for line in dockerfile.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()]
instructions = {}
for name in ("FROM", "USER", "RUN"):
    instructions[name] = [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{name} ")]
stages = [line.split() for line in instructions["FROM"]]
names = {"${BASE}", *(stage[2] for stage in stages)}
if not all(stage[0] in names for stage in stages):
    raise SystemExit(f"{dockerfile}: builds from {[stage[0] for stage in stages]}; expected ${{BASE}} only, so that each build names its base.")
if instructions["USER"] != [f"{USER}:{USER}"] * 3:
    raise SystemExit(f"{dockerfile}: ends as users {instructions['USER']}; expected three times {USER}:{USER}, as in platform_assets/kubernetes/manifest.py.")
for lock in ("platform", "service", "trainer"):
    if not any(f"--require-hashes --requirement /build/{lock}.lock" in line for line in instructions["RUN"]):
        raise SystemExit(f"{dockerfile}: installs without `--require-hashes` from {lock}.lock.")
if not any(SCRATCH in line.split() and "mkdir" in line for line in instructions["RUN"]):
    raise SystemExit(f"{dockerfile}: does not create {SCRATCH}, where a step may write.")
print(f"images: user {USER}, {SCRATCH}, packages by hash")
PYTHON
