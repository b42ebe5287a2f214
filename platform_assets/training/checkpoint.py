"""Train the model of one cutoff, in a step outside this process, and store its weights under their digest.

The step sees the labelled keys before the cutoff, except the holdout, keys that are held or dropped, and keys whose
labels were given up by then. It reads its rows by content digest, so the manifest names exactly what was learned from.
It also trains the cheap baselines. A killed step resumes and ends with the same bytes; the same code, data,
configuration and library versions are never trained twice.

A training that would exceed the product's monthly budget is not launched, whoever requests it, unless a person gives a
reason in this asset's config (`over_budget_reason`), which is recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import msgspec

from platform_assets.base import naming
from platform_assets.base.wording import counted
from platform_assets.engine import partitions
from platform_assets.engine.cutoffs import CutoffRun, Inputs, Recorded
from platform_assets.engine.outside import ALONE, Outside, Size, Work
from platform_assets.engine.stage import Stage, dep
from platform_assets.product.spec import Product
from platform_assets.store.records.trainings import Parameters
from platform_assets.store.tables import PartitionRecord
from platform_assets.training import requests
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.learners.network import learner_of
from platform_assets.training.steps import instructions, parameters
from platform_assets.training.steps.jobs import Job, Trained

STAGE = "checkpoint"
STEP = "platform_assets.launch.train"


@dataclass(frozen=True)
class Configured:
    """A training on record, and what it was configured with."""

    content: Recorded
    parameters: Parameters


class CheckpointConfig(dg.Config):
    """Optional input of a person.

    Attributes:
        over_budget_reason: why this training may exceed the month's budget.
    """

    over_budget_reason: str = ""


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's checkpoint stage.

    Raises:
        ValueError: the product expects a training to take longer than any can.
    """
    outside.budget.check(spec)  # here and not in `Product`, whose class is digested: prices would be in the digest
    window = partitions.window_mapping(partitions.cutoffs_of(spec), width=spec.window, label_delay=spec.label_delay)
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.TRAINING,
        kinds=learner_of(spec).kinds,
        doc=__doc__,
        maker=Learning.for_product(spec),
        run=_CheckpointRun,
        outside=outside,
        deps=[dep(spec, "features", mapping=window), dep(spec, "outcomes", mapping=window)],
        config=CheckpointConfig,
        needs=[naming.LAUNCHER],
        # Held by the run and not by the step (granularity: run): a step that waits for its slot polls without a pause.
        pool=naming.pool(spec.training.profile),
    )


class _CheckpointRun(CutoffRun[Learning]):
    _job: Job
    _left_out: Collection[str]
    _versions: dict[str, str]
    _size: Size

    def inputs(self) -> Inputs:
        self._left_out = requests.left_out(self.product, self.cutoff)
        self._size = self.launcher.size(self.spec.training.profile)
        self._versions = self.launcher.libraries(self._size)
        try:
            self._job = requests.job(self.product, self.cutoff, self._left_out, self._versions, self._size)
        except requests.OlderRows as problem:
            usd = self.stage.outside.budget.usd_of(problem.behind.cpu_s)
            raise dg.Failure(f"{problem} Their price is about {usd:.2g} USD.", allow_retries=False) from None
        return {"fingerprint": self._job.fingerprint}

    def is_current(self, record: PartitionRecord, inputs: Inputs) -> bool:
        cutoff = self.cutoff
        if not super().is_current(record, inputs):
            return False
        if self.product.artifacts.is_whole(record.content_digest, naming.CHECKPOINT_BLOBS):
            self.context.log.info(f"checkpoint of {cutoff} is up to date: same code, data and configuration.")
            return True
        self.context.log.warning(
            f"checkpoint of {cutoff} is not completely readable; it is trained again, to the same bytes."
        )
        return False

    def make(self, inputs: Inputs) -> Recorded:
        spec, job, log = self.spec, self._job, self.context.log
        over = self.stage.outside.budget.allow(
            self.product,
            cutoff=self.cutoff,
            fingerprint=job.fingerprint,
            reason=self.config.over_budget_reason,
            run_id=self.context.run.run_id,
        )
        if over is not None:
            log.warning(f"in {over.month} {over.over} Training anyway: {over.why}")
        log.info(
            f"training {spec.name} for cutoff {job.cutoff} on {counted(len(job.training_keys), 'key')}; "
            f"holdout: {counted(len(job.holdout_keys), 'key')}; left out for faults or missing labels: "
            f"{', '.join(self._left_out) or 'none'}."
        )
        # Never in this process: a laptop and a pod run the same lines, and a new Dagster changes no training's image.
        result = self.launcher.run(
            context=self.context,
            module=STEP,
            extras=instructions.to_extras(job, self.maker, self._versions),
            profile=self._size,
            work=Work(
                product=spec.name, step="train", cutoff=self.cutoff, fingerprint=job.fingerprint, owner=spec.owner
            ),
            is_shared=True,
        )
        self.stage.outside.tracking.export(self.product, job.fingerprint, log.warning)
        done = msgspec.convert(result, Trained)
        notes = msgspec.to_builtins(done) | ({} if over is None else {"over_budget": over.document()})
        return Recorded(done.checkpoint, notes)

    def facts(self, content: Recorded) -> Configured:
        return Configured(content, {"learner": type(self.maker.learner).__name__, **parameters.describe(self.maker)})
