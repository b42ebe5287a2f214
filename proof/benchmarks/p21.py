"""Training on a GPU: throughput next to the CPU, utilisation, what bfloat16 gains and loses, and equal bytes.

Each training is a step's process on a store of its own, with the rows of the first keys of a recording: of the flights
until April, and of 24 batches of garment photos. A row per second is one row of one epoch over the time of the whole
step. Same bytes are those of the checkpoint's manifest, which names every file of the model by its digest, of three
trainings in float32: two alike, and one that SIGKILL ends at half and that goes on. Without a GPU the row has the CPU's
part only. `P21_PRODUCTS` names fewer products, for a look at the row.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import torch

from platform_assets.automation.factory import build_defs
from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store.product_store import ProductStore
from proof.benchmarks.harness import Disagreement, Measure

CUTOFFS = {"flight_delays": "2013-04-01", "garment_photos": "0025"}
STAGES = ("raw_", "validated_", "quarantine_", "features", "outcomes")
USE = {"mean_gpu_percent": "GPU's utilisation, %", "peak_gpu_memory_mb": "MB of the GPU's memory"}
Numbers = Mapping[str, Any]
shown: list[str] = []


def run() -> list[Measure]:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    names = os.environ.get("P21_PRODUCTS", ",".join(CUTOFFS)).split(",")
    shown[:] = [f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}." if devices[1:] else "No GPU was there."]
    measures = list[Measure]()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            landed = Path(folder, "landed")
            # Land the keys before a cutoff, and take them through the data stages.
            spec, settings = product_files.load(name), Settings.from_environment({"DRIFTLINE_STATE": str(landed)})
            product, store = ProductStore(spec, settings), StoreResource(variables=settings.to_environment())
            keys = [key for key in spec.grain.span(spec.grain.first, CUTOFFS[name]) if key < CUTOFFS[name]]
            for _ in replay.land(product, keys):
                pass
            defs = build_defs(specs=[spec], resources={"store": store})
            data = [key for key in defs.resolve_asset_graph().get_all_asset_keys() if key.path[-1].startswith(STAGES)]
            with dg.DagsterInstance.ephemeral() as instance:
                defs.resolve_job_def(naming.job("advance", name)).execute_in_process(
                    instance=instance,
                    asset_selection=data,
                    tags={
                        "dagster/asset_partition_range_start": keys[0],
                        "dagster/asset_partition_range_end": keys[-1],
                    },
                )
            wholes = {device: _trained(name, landed, device, "float32") for device in devices}
            for device, whole in wholes.items():
                others = {f"on the {other}": _speed(numbers) for other, numbers in wholes.items() if other != device}
                again, rounded = _trained(name, landed, device, "float32"), _trained(name, landed, device, "bfloat16")
                killed = _trained(name, landed, device, "float32", is_killed=True)
                same = sum(numbers["checkpoint"] == whole["checkpoint"] for numbers in (whole, again, killed))
                case = f"{name} on the {device}"
                measures += [
                    Measure(f"{case}: rows per second", _speed(whole), peers={"bfloat16": _speed(rounded), **others}),
                    Measure(
                        f"{case}: log loss on the holdout", whole["log_loss"], peers={"bfloat16": rounded["log_loss"]}
                    ),
                    Measure(f"{case}: trainings of three with the same bytes", same, target=">= 3"),
                    *(
                        Measure(f"{case}: {text}", whole[key], peers={"bfloat16": rounded[key]})
                        for key, text in USE.items()
                        if key in whole
                    ),
                ]
    return measures


def _speed(numbers: Numbers) -> float:
    return float(numbers["learned_rows"] / numbers["wall_s"])


def _trained(name: str, landed: Path, device: str, precision: str, *, is_killed: bool = False) -> Numbers:
    """Train in a copy of a store; if it is killed, a second process goes on.

    Raises:
        Disagreement: the killed one did not die, or the other one began anew.
    """
    command = [sys.executable, "-m", "proof.benchmarks.p21_run", name, CUTOFFS[name], device, precision]
    with tempfile.TemporaryDirectory(dir=landed.parent) as folder:
        shutil.copytree(landed, folder, dirs_exist_ok=True, copy_function=os.link)
        environment = {**os.environ, "DRIFTLINE_STATE": folder}
        if is_killed:
            ended = subprocess.run([*command, "killed"], env=environment, check=False, stdout=subprocess.DEVNULL)
            if ended.returncode != -signal.SIGKILL:
                raise Disagreement(f"the training that kills itself at half ended with {ended.returncode}.")
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        numbers: Numbers = json.loads(output.splitlines()[-1])
        if bool(numbers["resumed"]) != is_killed:
            raise Disagreement(f"the training resumed from step {numbers['resumed']}; it was killed: {is_killed}.")
        return numbers
