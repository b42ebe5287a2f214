"""Ticks in threads: in a code server, the first ones import the same libraries at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FIRST_TICKS = """
import sys, threading
import dagster as dg
from platform_assets.kubernetes import api
from platform_assets.engine.store_resource import StoreResource
from platform_assets.sensors import orphaned_steps
from platform_assets.store import artifacts, delta, ledgers

root, instance, problems = sys.argv[1], dg.DagsterInstance.from_config(sys.argv[2]), []

def runs():
    context = dg.build_sensor_context(instance)
    skipped = orphaned_steps.watch.build([])(context).skip_reason.skip_message
    assert "started by RunLauncher" in skipped, skipped

def pods():
    try:
        api.Api("driftline", patience_s=0.0).pods({})
    except api.ApiTrouble as trouble:
        assert "no Kubernetes cluster is configured" in str(trouble), trouble

def commits():
    with delta.storage_errors("here", "was not"):
        pass

def tick(act):
    together.wait()
    try:
        act()
    except BaseException as problem:  # the main thread reports it
        problems.append(f"{act.__name__}: {type(problem).__name__}: {problem}")

acts = [
    runs,
    pods,
    commits,
    lambda: ledgers.Ledgers(root, "tiny").newest_number("releases"),
    lambda: artifacts.ArtifactStore(root),
    lambda: delta.open_table(root + "/table"),
]
together = threading.Barrier(2 * len(acts))
threads = [threading.Thread(target=tick, args=(act,)) for act in 2 * acts]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert "dagster_k8s" not in sys.modules, "it imports submodules of kubernetes, which may deadlock with another tick"
sys.exit("; ".join(problems) or None)
"""
CLUSTER = """
run_launcher:
  module: platform_assets.instance.run_launcher
  class: RunLauncher
  config: {service_account_name: runs, instance_config_map: dagster, dagster_home: /d, load_incluster_config: false}
"""


@pytest.mark.costly
def test_ticks_that_start_together_import_their_libraries_completely(tmp_path: Path, repository: Path) -> None:
    environment = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(repository)}
    (home := tmp_path / "home").mkdir()
    (home / "dagster.yaml").write_text(CLUSTER)
    command = [sys.executable, "-c", FIRST_TICKS, str(tmp_path / "store"), str(home)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
