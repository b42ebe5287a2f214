"""Export the checkpoint to one ONNX file, from raw columns and strings to the prediction, and seal the bundle.

The step proves that the graph answers like the trained model on every holdout row; without parity there is no bundle.
The bundle's digest is the model's name everywhere: verdicts, releases, predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from platform_assets.base import naming
from platform_assets.data.stage_inputs import require
from platform_assets.engine.cutoffs import CutoffRun, Inputs, Recorded
from platform_assets.engine.outside import ALONE, Outside, Work
from platform_assets.engine.stage import Stage, dep
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import ArtifactProblem, canonical, sha256
from platform_assets.store.tables import PartitionRecord
from platform_assets.training.learners.network import learner_of
from platform_assets.training.onnx_maker import Exporting
from platform_assets.training.steps import instructions
from platform_assets.training.steps.jobs import Exported, ExportJob

STAGE = "onnx"
STEP = "platform_assets.training.steps.export"


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's onnx stage."""
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.TRAINING,
        kinds=tuple(dict.fromkeys(("onnx", *learner_of(spec).kinds[:1]))),
        doc=__doc__,
        maker=Exporting.for_product(spec),
        run=_OnnxRun,
        outside=outside,
        deps=[dep(spec, "checkpoint")],
        needs=[naming.LAUNCHER],
        pool=naming.pool(spec.training.profile),
    )


class _OnnxRun(CutoffRun[Exporting]):
    def inputs(self) -> Inputs:
        return {"checkpoint": require(self.tables, "checkpoint", [self.cutoff])[self.cutoff].content_digest}

    def is_current(self, record: PartitionRecord, inputs: Inputs) -> bool:
        try:
            is_whole = (
                super().is_current(record, inputs) and self.product.artifacts.bundle(record.content_digest).is_whole
            )
        except ArtifactProblem:  # nobody can read it, so it is exported again
            is_whole = False
        if is_whole:
            self.context.log.info(f"bundle of {self.cutoff} is up to date: same checkpoint and code.")
        return is_whole

    def make(self, inputs: Inputs) -> Recorded:
        size, product = self.launcher.size(self.spec.training.profile), self.spec.name
        fingerprint = sha256(canonical([self.code, inputs]))
        result = self.launcher.run(
            context=self.context,
            module=STEP,
            extras=instructions.to_extras(
                ExportJob(product=product, module=self.spec.module, checkpoint=inputs["checkpoint"]), self.maker
            ),
            profile=size,
            work=Work(
                product=product, step="export", cutoff=self.cutoff, fingerprint=fingerprint, owner=self.spec.owner
            ),
        )
        done = msgspec.convert(result, Exported)
        self.context.log.info(f"the model of cutoff {self.cutoff} is bundle {done.bundle}.")
        self.stage.outside.tracking.attach(self.product, inputs["checkpoint"], done.bundle, self.context.log.warning)
        return Recorded(done.bundle, msgspec.to_builtins(done))
