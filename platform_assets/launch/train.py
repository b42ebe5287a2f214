"""Run the step that trains: `python -m platform_assets.launch.train`, input by Dagster Pipes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from platform_assets.base.settings import Settings
from platform_assets.engine import product_files
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.launch.profiles import profile
from platform_assets.product.spec import Product
from platform_assets.product.tasks import Task
from platform_assets.store.records.base import Number
from platform_assets.training import rare
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions, process
from platform_assets.training.steps.jobs import Job
from platform_assets.training.steps.train import Training


def training(spec: Product, job: Job, settings: Settings, **more: Any) -> Training:
    """Return a training that records its quality on the holdout, and its price; for `more` see `Training`."""
    price = profile(spec.training.profile).usd_per_hour
    return Training(spec, job, settings, quality=quality, usd_per_hour=price, **more)


def quality(labels: NDArray[Any], answers: NDArray[Any], task: Task) -> dict[str, Number | None]:
    """Measure answers [N] or [N, P] against labels [N]: by the task's measures, and as a rare class where it is one."""
    return {**rare.quality(labels, answers, task), **measures_of(task).quality(labels, answers)}


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened() as context:
        job = Job.from_extras(context.extras)
        spec = product_files.load_of(job.product, job.module)
        instructions.check_maker(context.extras, Learning.for_product(spec))
        instructions.check_libraries(context.extras)
        step = training(spec, job, Settings.from_environment(), log=context.log.info, stop=stop)
        context.report_custom_message(step.run())


if __name__ == "__main__":
    main()
