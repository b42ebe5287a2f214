"""Judge the challenger, the champion and the baselines on the same holdout rows, and write the verdict.

The comparison is paired and clustered by key. The verdict is one create-only record under the bundle's digest, so the
same digest is never judged twice. A failed verdict is a successful asset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.problems import RecordExists
from platform_assets.base.wording import counted, span
from platform_assets.data.stage_inputs import require
from platform_assets.engine.cutoffs import CutoffRun, Inputs, Recorded
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.stage import Stage, dep
from platform_assets.evaluation import signing
from platform_assets.evaluation.evaluation_maker import Evaluating
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.verdicts import Verdict
from platform_assets.training.steps import process

STAGE = "evaluation"
CHECK = "verdict"


@dataclass(frozen=True)
class Judged:
    """A verdict, and the CPU seconds that it took; few if it was on record."""

    verdict: Verdict
    cpu_s: float


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's evaluation stage."""
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.TRAINING,
        kinds=("onnx", "numpy"),
        doc=__doc__,
        maker=Evaluating.for_product(spec, measures_of(spec.task)),
        run=_EvaluationRun,
        outside=outside,
        deps=[dep(spec, "onnx")],
        checks={CHECK: "The bundle may be released. Blocks nothing: a release checks the verdict itself."},
    )


class _EvaluationRun(CutoffRun[Evaluating]):
    _verdict: Verdict
    _cpu_s: float

    def inputs(self) -> Inputs:
        """Judge the bundle unless it has a verdict; the cutoff's record does not show whether it has one."""
        started_s = process.cpu_s()
        digest = require(self.tables, "onnx", [self.cutoff])[self.cutoff].content_digest
        verdict = self.product.history.verdict(digest)
        if verdict is not None:
            self.context.log.info(f"{digest} was judged before; its verdict is final.")
        else:
            try:
                signing.private_key(self.product.settings)  # refuse a wrong key before a judgement of minutes
                verdict = judge(self.product, digest)
                signing.write_verdict(self.product, digest, verdict)
            # Another run judged the same digest meanwhile; its verdict is final.
            except RecordExists:
                verdict = self.product.history.verdict(digest)
                assert verdict is not None  # records are never removed
        self._verdict = verdict
        self._cpu_s = round(process.cpu_s() - started_s, 3)
        return {"bundle": digest}

    def make(self, inputs: Inputs) -> Recorded:
        return Recorded(inputs["bundle"], {"passed": self._verdict.passed, "cpu_s": self._cpu_s})

    def facts(self, content: Recorded) -> Judged:
        self.context.log.info(" ".join(self._verdict.reasons))
        return Judged(self._verdict, self._cpu_s)

    def checks(self) -> Sequence[dg.AssetCheckResult]:
        verdict = self._verdict
        check = dg.AssetCheckResult(
            check_name=CHECK,
            passed=verdict.passed,
            # An error that blocks would hold within this run alone. A release goes by the record, whoever asks for it.
            severity=dg.AssetCheckSeverity.WARN,
            description=" ".join(verdict.reasons),
            metadata={"digest": verdict.digest, "cutoff": verdict.cutoff},
        )
        return [check]


def judge(product: ProductStore, digest: str) -> Verdict:
    """Judge a bundle on its holdout, against its baselines and the live champion.

    Raises:
        dagster.Failure: the champion was trained on rows of this holdout: its numbers would be too good.
    """
    maker = Evaluating.for_product(product.spec, measures_of(product.spec.task))
    champion, reasons = maker.champion(product.artifacts, product.history, digest)
    if champion:
        trained, manifest = product.artifacts.bundle(champion).manifest, product.artifacts.bundle(digest).manifest
        if seen := set(trained["training_keys"]) & set(manifest["holdout_keys"]):
            raise dg.Failure(
                f"the live model {champion} was trained on {counted(len(seen), 'key')} of this holdout "
                f"({span(sorted(seen))}), so cutoff {manifest['cutoff']} cannot be judged against it. Choose a later "
                "cutoff."
            )
    return maker.verdict(product.artifacts, product.tables, digest, champion, reasons)
