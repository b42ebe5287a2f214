"""What surrounds a run on the cluster environment in a test: checkout, Dagster's home, daemon, and a laptop beside it.

Belongs here: starting and ending such things, and looking for what is left of them. Does not belong here: the
cluster's double (`cluster/`), servers, or what a test asserts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import obstore
import psutil
import yaml

from platform_assets import specs
from platform_assets.storage.objects import open_store
from tests.doubles.checkout import copied
from tests.doubles.cluster.cluster import Cluster

PATIENCE_S = 240.0

ON_A_LAPTOP = """
import sys
import dagster as dg
from platform_assets.definitions import defs

product, first, last, cutoff = sys.argv[1:]
keys = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
with dg.DagsterInstance.ephemeral() as instance:
    defs.resolve_job_def(f"advance__{product}").execute_in_process(instance=instance, tags=keys)
    chosen = [dg.AssetKey([product, stage]) for stage in ("checkpoint", "onnx")]
    job = defs.resolve_job_def(f"retrain__{product}")
    job.execute_in_process(instance=instance, partition_key=cutoff, asset_selection=chosen)
"""


def checkout(repository: Path, place: Path, product: ModuleType) -> Path:
    """Return a copy of the sources in which a product's file is the only one."""
    place.mkdir()
    copied(repository, place)
    folder = place / "platform_assets" / "specs"
    for name in specs.names():
        (folder / f"{name}.py").unlink()
    (folder / f"{product.SPEC.name}.py").write_bytes(Path(str(product.__file__)).read_bytes())
    return place


def home(repository: Path, place: Path) -> None:
    """Make Dagster's home with the cluster's own file, but for how Kubernetes is found: by a file, not from inside."""
    config = yaml.safe_load((repository / "deploy/dagster/cluster/dagster.yaml").read_text(encoding="utf-8"))
    config["run_launcher"]["config"]["load_incluster_config"] = False
    place.mkdir()
    (place / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def land(root: str, files: Mapping[str, str]) -> None:
    """Deliver files below a root's `landing/`."""
    store = open_store(root)
    for place, text in files.items():
        obstore.put(store, f"landing/{place}", text.encode())


@contextmanager
def daemon(checkout: Path, log: Path) -> Iterator[None]:
    """Run Dagster's daemon with its code server, and end both."""
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "--workspace", "workspace.yaml"]
    with log.open("wb") as said:
        started = psutil.Popen(command, cwd=checkout, env=_environment(checkout), stdout=said, stderr=said)
    try:
        yield
    finally:
        # Its code server is in a session of its own and would live on until it misses the daemon's heartbeats.
        ours = [started, *started.children(recursive=True)]
        for process in ours:
            process.terminate()
        psutil.wait_procs(ours, PATIENCE_S)


def training_on_a_laptop(checkout: Path, place: Path, *words: str) -> AbstractContextManager[None]:
    """Train on the files in a folder meanwhile, by steps that are processes; `words`: product, first, last, cutoff."""
    return training(checkout, place / "laptop", {}, *words)


@contextmanager
def training(checkout: Path, state: Path, told: Mapping[str, str], *words: str) -> Iterator[None]:
    """Train meanwhile in a process with a state of its own, as an environment says; `words` as above."""
    ours = ("DRIFTLINE_", "AWS_", "DAGSTER_", "KUBECONFIG")
    kept = {name: value for name, value in _environment(checkout).items() if not name.startswith(ours)}
    command = [sys.executable, "-c", ON_A_LAPTOP, *words]
    log = state.with_suffix(".log")
    with log.open("wb") as said:
        environment = {**kept, "DRIFTLINE_STATE": str(state), **told}
        laptop = subprocess.Popen(command, cwd=checkout, env=environment, stdout=said, stderr=said)
    try:
        yield
        ended = laptop.wait(PATIENCE_S)
    finally:
        laptop.terminate()
        laptop.wait()
    assert ended == 0, log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout)}


def under_way(cluster: Cluster) -> list[str]:
    """Return pods of steps, and other pods that are not through."""
    through = ("Succeeded", "Failed")
    of_steps = {pod["metadata"]["name"] for pod in cluster.pods("driftline/step")}
    return [
        name
        for pod in cluster.pods()
        if (name := pod["metadata"]["name"]) in of_steps or pod["status"]["phase"] not in through
    ]


def processes_of(checkout: Path) -> list[str]:
    """Return the commands of processes that were started for a checkout and still run."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline", "status"]):
        is_ours = (process.info["environ"] or {}).get("PYTHONPATH") == str(checkout)
        if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or []))
    return found
