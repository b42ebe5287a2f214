"""Run the step that trains: `python -m platform_assets.launch.train`, input by Dagster Pipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from platform_assets.base.settings import Settings
from platform_assets.base.wording import counted
from platform_assets.engine import product_files
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.launch.profiles import profile
from platform_assets.product.learner import TrainingProblem
from platform_assets.product.spec import Product
from platform_assets.product.tasks import Task
from platform_assets.store.records.base import Number
from platform_assets.training import rare_classes
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions, process
from platform_assets.training.steps.jobs import Job
from platform_assets.training.steps.train import Training

if TYPE_CHECKING:
    from platform_assets.training.process_group import ProcessGroup


def training(spec: Product, job: Job, settings: Settings, **more: Any) -> Training:
    """Return a training that records its quality on the holdout, and its price; for `more` see `Training`."""
    price = profile(spec.training.profile).usd_per_hour_in_all
    return Training(spec, job, settings, quality=quality, usd_per_hour=price, **more)


def quality(labels: NDArray[Any], answers: NDArray[Any], task: Task) -> dict[str, Number | None]:
    """Measure answers [N] or [N, P] against labels [N]: by the task's measures, and as a rare class where it is one."""
    return {**rare_classes.quality(labels, answers, task), **measures_of(task).quality(labels, answers)}


def main(group: ProcessGroup | None = None) -> None:
    """Run the step that Dagster Pipes describes.

    Args:
        group: of the processes that share it (`launch.rank`), of which this is one.

    Raises:
        TrainingProblem: the step's input names another number of processes.
    """
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened(is_silent=group is not None and group.rank > 0) as context:
        job = Job.from_extras(context.extras)
        if (size := 1 if group is None else group.size) != job.world_size:
            raise TrainingProblem(
                f"the training runs in {counted(size, 'process')} and was requested for {job.world_size}; "
                "expected as many as the profile has. Start it by a launcher of DRIFTLINE_LAUNCHER."
            )
        spec = product_files.load_of(job.product, job.module)
        instructions.check_maker(context.extras, Learning.for_product(spec))
        instructions.check_libraries(context.extras)
        step = training(spec, job, Settings.from_environment(), log=context.log.info, stop=stop, group=group)
        result = step.run()
        if result is not None:
            context.report_custom_message(result)


if __name__ == "__main__":
    main()
