"""Fit one trial of a search and judge it: `python -m platform_assets.training.steps.trial`, input by Dagster Pipes.

Nothing is stored: loss and curve are the result. A trial that is killed begins again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from platform_assets.base.settings import Settings
from platform_assets.engine import product_files
from platform_assets.engine.digests import reads
from platform_assets.product.learner import Alone, Resumable, TrainingProblem
from platform_assets.store.tables import TableStore
from platform_assets.training import gpu_memory
from platform_assets.training.changes import values_of, with_values
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.steps import instructions, process
from platform_assets.training.steps.jobs import TrialJob, Tried

if TYPE_CHECKING:
    from platform_assets.product.spec import Product

UNJUDGED = 0.2
"""First share of a trial in which it does not end early: twice the share in which the learning rate of a network
climbs."""


class _EndedEarly(Exception):
    """The curve of a trial is worse than most others."""


def is_hopeless(curve: Mapping[int, float], medians: Mapping[int, float], steps: int) -> bool:
    """Return whether a trial's best judged loss so far is above the median that others had at its newest point.

    Args:
        curve: its judged losses by epoch or round.
        medians: those of finished trials; none where too few have finished.
        steps: how many epochs or rounds the trial has.
    """
    newest = max(curve)
    median = medians.get(newest)
    return median is not None and UNJUDGED * steps < newest < steps and min(curve.values()) > median


class TrialProgress(Alone):
    """Progress of a trial: a request stops it, and its curve may end it.

    Args:
        on_step: takes done and all steps after each.
    """

    def __init__(
        self, job: TrialJob, stop: process.StopRequest, on_step: Callable[[int, int], None] | None = None
    ) -> None:
        super().__init__()
        self.curve: dict[int, float] = {}
        self._medians, self._stop, self._on_step = dict(job.medians), stop, on_step

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Keep and judge the measures."""
        super().note(done, steps, **measures)
        self._go_on(done, steps)
        self._judge(done, steps, measures)

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop to its end."""
        while not loop.is_finished:
            epochs = len(loop.history)
            loop.step()
            self._go_on(loop.done, loop.steps)
            if len(loop.history) > epochs:
                self._judge(len(loop.history), loop.epochs, loop.history[-1])

    def _go_on(self, done: int, steps: int) -> None:
        if self._on_step is not None:
            self._on_step(done, steps)
        self._stop.check()

    def _judge(self, done: int, steps: int, measures: Mapping[str, float]) -> None:
        loss = measures.get("judged_loss")
        if loss is not None and done < steps:
            self.curve[done] = loss
            if is_hopeless(self.curve, self._medians, steps):
                raise _EndedEarly


def run(spec: Product, job: TrialJob, settings: Settings, progress: TrialProgress) -> Tried:
    """Fit and judge a trial.

    Args:
        spec: the product with the trial's settings.

    Raises:
        Preempted: stopped on request.
        ValueError: no row to judge it on.
    """
    began_s, loss, problem = process.cpu_s(), None, None
    maker, digests_by_key = Learning.for_product(spec), (job.features, job.outcomes)
    tables = TableStore(settings.root, spec.name)
    assert job.known_before is not None
    known_before = datetime.fromisoformat(job.known_before)
    try:
        with reads.guarded(spec.module, maker):
            maker.prepare(job.device, job.precision)
            if job.device == "cuda" and settings.gpu_memory_gb is not None:
                gpu_memory.limit(settings.gpu_memory_gb)
            rows = maker.rows(tables, job.training_keys, *digests_by_key, known_before).labelled()
            learned = maker.learn(rows)
            with gpu_memory.explained(spec.name, job.device):
                blobs = maker.fit(learned, rows, job.training_keys, progress, job.device, job.precision)
            judging = maker.rows(tables, job.holdout_keys, *digests_by_key, known_before).labelled()
            if not len(judging.inputs):
                raise ValueError(
                    f"the {len(job.holdout_keys)} keys from {job.holdout_keys[0]} on, which judge trials of "
                    f"{spec.name}, have no labelled row; choose another cutoff."
                )
            loss = float(spec.task.losses(judging.labels, maker.answers(blobs, learned, judging)).mean())
        if not math.isfinite(loss):
            raise TrainingProblem(f"the loss on the rows that judge is {loss}; expected a finite number")
    except _EndedEarly:  # its curve is the result
        pass
    except TrainingProblem as error:
        loss, problem = None, str(error)
    return Tried(
        curve=list(progress.curve.items()),
        loss=loss,
        problem=problem,
        cpu_s=round(process.cpu_s() - began_s, 3),
        peak_memory_mb=round(process.peak_memory_mb(), 1),
    )


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened() as context:
        job = msgspec.convert(context.extras, TrialJob)
        product = product_files.load_of(job.product, job.module)
        spec = with_values(product, values_of(product, job.params))
        instructions.check_maker(context.extras, Learning.for_product(spec))
        instructions.check_libraries(context.extras)
        result = run(spec, job, Settings.from_environment(), TrialProgress(job, stop))
        context.report_custom_message(msgspec.to_builtins(result))


if __name__ == "__main__":
    main()
