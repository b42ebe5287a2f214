"""Train one model without the loop, live on a terminal. No partition, verdict or release is touched."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from platform_assets.launch.profiles import profile
from platform_assets.launch.train import training
from platform_assets.operations import mlflow
from platform_assets.operations.experiments import terminal
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.trainings import EXPERIMENT, Training
from platform_assets.training import libraries, requests
from platform_assets.training.changes import changed
from platform_assets.training.steps import process


def run(product: ProductStore, cutoff: str, settings: Sequence[str], console: Console) -> Training:
    """Train on the keys before a cutoff, in this process; return the record.

    Equal code, data and configuration are not trained twice: their record is returned.

    Args:
        settings: see `changes.changed`.

    Raises:
        ValueError: a wrong change, too few keys, or rows that nothing can be learned from.
        MissingPartitions: a key has no features or outcomes yet.
    """
    spec = changed(product.spec, settings)
    changed_product, out = ProductStore(spec, product.settings), requests.left_out(product, cutoff)
    job = requests.job(
        changed_product,
        cutoff,
        out,
        libraries.installed(),
        profile(spec.training.profile).of_one_process,
        purpose=EXPERIMENT,
    )
    with terminal.progress(console) as progress:
        bar = progress.add_task(f"{spec.name} {cutoff}", total=None)
        step = training(
            spec,
            job,
            product.settings,
            log=lambda line: progress.console.print(line, markup=False, highlight=False),
            stop=process.StopRequest().listen(),
            on_step=lambda done, steps: progress.update(bar, completed=done, total=steps),
        )
        step.run()
    record = next(
        (record for _, record in product.history.trainings_newest_first() if record.fingerprint == job.fingerprint),
        None,
    )
    if record is None:
        raise ValueError(
            f"{spec.name} {cutoff} was trained by older code, which recorded no training; expected a record. Change "
            "something with --set, or choose another cutoff."
        )
    mlflow.export(product, job.fingerprint, lambda line: console.print(line, markup=False, highlight=False))
    return record
