"""Build the Bento and prove that it serves this bundle: it is started, sent real rows, and compared answer by answer.

A Bento is built once per serving code and contract; a new model with the same contract needs none. Its files go into
the store, from where each machine that serves fetches them by their digest. The smoke test starts `bentoml serve` on
exactly this bundle and sends holdout rows: every answer must equal what the bundle gives here. A model that
fails it is not released.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.wording import counted
from platform_assets.data.request_rows import request_of
from platform_assets.data.stage_inputs import require
from platform_assets.engine.cutoffs import CutoffRun, Inputs, Recorded
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.stage import Stage, dep
from platform_assets.evaluation.evaluation_maker import Evaluating
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.spec import Product
from platform_assets.serving.answer import answers
from platform_assets.serving.run import build as bento
from platform_assets.serving.run import child
from platform_assets.training.steps import process

STAGE = "service"
SMOKE_ROWS = 64
MAX_DIFFERENCE = 1e-6
"""Batches of other sizes sum in another order, which differs by about one unit in the last place of a float32."""


@dataclass(frozen=True)
class Tested:
    """A Bento, and the record of its test."""

    built: bento.Built
    content: Recorded


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's service stage."""
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.SERVING,
        kinds=("bentoml", "onnx"),
        doc=__doc__,
        modules=["platform_assets.product.contract"],
        run=_ServiceRun,
        outside=outside,
        deps=[dep(spec, "onnx")],
    )


class _ServiceRun(CutoffRun[None]):
    _built: bento.Built
    _started_s: float

    def inputs(self) -> Inputs:
        """Build the Bento, or find the existing one."""
        sealed = require(self.tables, "onnx", [self.cutoff])[self.cutoff]
        self._started_s = process.cpu_s()
        self._built = built = bento.build(self.product.settings, self.product.artifacts, sealed.content_digest)
        self.context.log.info(f"Bento {built.tag} {'was built' if built.was_built else 'exists already'}.")
        return {"bundle": sealed.content_digest, "bento": built.content_digest}

    def make(self, inputs: Inputs) -> Recorded:
        """Send holdout rows to a started service; refuse answers that differ from the bundle's own."""
        tag, digest = self._built.tag, inputs["bundle"]
        evaluating = Evaluating.for_product(self.spec, measures_of(self.spec.task))
        holdout = evaluating.holdout(self.tables, self.product.artifacts.bundle(digest))
        sample = holdout.frame.head(SMOKE_ROWS)
        first = replace(holdout, frame=sample, inputs=holdout.inputs[: sample.height])
        expected = evaluating.score(self.product.artifacts, digest, first)
        # A live product's service accepts requests of the present only. No graph reads the moment.
        now = dict.fromkeys(("service_time", "asked_at"), self.product.now) if self.spec.is_live else {}
        bodies = [request_of(self.spec, {**row, **now}) for row in sample.iter_rows(named=True)]
        answered = child.smoke(self.product.settings, tag, digest, bodies)
        task = self.spec.task.document()
        served = [answers.numbers(task, answer) for answer in answered]
        expected_numbers = [[float(number) for number in row.reshape(-1)] for row in expected]
        # The largest difference between two answers' numbers; above 1, relative to their size.
        differences = [
            max(abs(one - other) / max(1.0, abs(other)) for one, other in zip(mine, theirs, strict=True))
            for mine, theirs in zip(served, expected_numbers, strict=True)
        ]
        if max(differences) > MAX_DIFFERENCE:
            worst = differences.index(max(differences))
            raise dg.Failure(
                f"{tag} answers {served[worst]} for {bodies[worst]['entity']} and bundle {digest} gives "
                f"{expected_numbers[worst]}; expected at most {MAX_DIFFERENCE} between them. It is not released."
            )
        rows, difference = len(answered), max(differences)
        self.context.log.info(f"{counted(rows, 'row')} answered as the bundle does, at most {difference:.1e} apart.")
        stored = bento.stored(self.product.artifacts, self._built)
        cpu_s = round(process.cpu_s() - self._started_s, 3)
        smoke = {"asked_rows": rows, "max_apart": difference, "request": bodies[0]}
        return Recorded(inputs["bento"], {**smoke, "tag": tag, "stored": stored, "cpu_s": cpu_s})

    def facts(self, content: Recorded) -> Tested:
        return Tested(self._built, content)
