"""The surroundings of a run on the cluster environment: checkout, Dagster's home, and training on a laptop."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import obstore
import psutil
import yaml

from platform_assets.engine import product_files
from platform_assets.store.objects import open_store
from tests.doubles.checkout import copied

PATIENCE_S = 600.0
"""Time limit for one part of a retrain on the slowest machine; beyond it, speed is not the reason."""
END_S = 120.0
LOG_CHARACTERS = 12_000

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
    folder = place / "platform_assets" / "products"
    for name in product_files.names():
        (folder / f"{name}.py").unlink()
    (folder / f"{product.SPEC.name}.py").write_bytes(Path(str(product.__file__)).read_bytes())
    return place


def home(repository: Path, dagster_home: Path) -> None:
    """Make Dagster's home with the cluster's own file, whose runs are processes of this machine."""
    config = yaml.safe_load((repository / "deploy/kubernetes/base/dagster.yaml").read_text(encoding="utf-8"))
    del config["run_launcher"]
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def land(root: str, files: Mapping[str, str]) -> None:
    """Deliver files below a root's `landing/`."""
    store = open_store(root)
    for path, text in files.items():
        obstore.put(store, f"landing/{path}", text.encode())


def training_on_a_laptop(checkout: Path, parent: Path, *arguments: str) -> AbstractContextManager[None]:
    """Train on the files in a folder meanwhile, with steps as processes; `arguments`: product, first, last, cutoff."""
    return training(checkout, parent / "laptop", {}, *arguments)


@contextmanager
def training(checkout: Path, state: Path, variables: Mapping[str, str], *arguments: str) -> Iterator[None]:
    """Train meanwhile in a process with a state and an environment of its own; `arguments` as above."""
    ours = ("DRIFTLINE_", "AWS_", "DAGSTER_", "KUBECONFIG")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    others["PYTHONPATH"] = str(checkout)
    command = [sys.executable, "-c", ON_A_LAPTOP, *arguments]
    log = state.with_suffix(".log")
    with log.open("wb") as output:
        environment = {**others, "DRIFTLINE_STATE": str(state), "PYTHONFAULTHANDLER": "1", **variables}
        laptop = psutil.Popen(command, cwd=checkout, env=environment, stdout=output, stderr=output)
    try:
        yield
        with contextlib.suppress(psutil.TimeoutExpired):
            laptop.wait(PATIENCE_S)
        is_over = laptop.poll() is not None
    finally:
        # A daemon's code server has a session of its own and would live until it misses the daemon's heartbeats.
        processes = [laptop, *(laptop.children(recursive=True) if laptop.poll() is None else ())]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGABRT)
        _, alive = psutil.wait_procs(processes, END_S)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, END_S)
    assert is_over and laptop.returncode == 0, log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
