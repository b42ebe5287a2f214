"""Train a product once and print what it took, as JSON: a process of row P21.

`python -m proof.benchmarks.p21_run PRODUCT CUTOFF DEVICE PRECISION [killed]`: `killed` ends it by SIGKILL at half.
"""

import json
import os
import signal
import sys

import msgspec

from platform_assets.base.settings import Settings
from platform_assets.engine import product_files
from platform_assets.launch.profiles import PROFILES
from platform_assets.launch.train import training
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.trainings import EXPERIMENT
from platform_assets.training import libraries, requests
from platform_assets.training.steps.jobs import Trained

SAVE_EVERY_S = 0.1
SIZES = {"cpu": "cpu_small", "cuda": "gpu"}


def main(name: str, cutoff: str, device: str, precision: str, *acts: str) -> None:
    """Train, or go on where a killed process was."""
    product = ProductStore(product_files.load(name), Settings.from_environment())
    size = PROFILES[SIZES[device]].replace(precision=precision)
    job = requests.job(
        product, cutoff, requests.left_out(product, cutoff), libraries.installed(), size, purpose=EXPERIMENT
    )

    def on_step(done: int, steps: int) -> None:
        if acts and 2 * done >= steps:
            os.kill(os.getpid(), signal.SIGKILL)

    step = training(
        product.spec,
        job,
        product.settings,
        log=lambda line: print(line, file=sys.stderr),
        on_step=on_step,
        save_every_s=SAVE_EVERY_S if acts else None,
    )
    result = msgspec.convert(step.run(), Trained)
    ((_, record),) = product.history.trainings_newest_first()
    print(
        json.dumps(
            {
                "checkpoint": result.checkpoint,
                "resumed": result.resumed_from_step,
                "learned_rows": record.rows * len(record.curve),
                "wall_s": record.wall_s,
                "log_loss": record.quality["log_loss"],
                **(result.used or {}),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
