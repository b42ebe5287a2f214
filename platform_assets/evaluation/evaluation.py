"""Judge the challenger, the champion and the baselines on the same holdout rows, and write the verdict.

The comparison is paired and clustered by key. The verdict is one create-only record under the bundle's digest, so the
same digest is never judged twice. A failed verdict is a successful asset.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from platform_assets.store.artifacts import Bundle
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


def build(spec: Product, outside: Outside = ALONE) -> list[dg.AssetsDefinition]:
    """Return the product's evaluation asset."""
    return [asset for stage in stages(spec, outside) for asset in stage.assets()]


def stages(spec: Product, outside: Outside = ALONE) -> list[Stage[Any]]:
    """Return the product's evaluation stage."""
    stage: Stage[Any] = Stage(
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
    return [stage]


class _EvaluationRun(CutoffRun[Evaluating]):
    _verdict: Verdict
    _cpu_s: float

    def inputs(self) -> Inputs:
        """Judge the bundle unless it has a verdict; the cutoff's record does not show whether it has one."""
        started_s = process.cpu_s()
        digest = require(self.tables, "onnx", [self.cutoff])[self.cutoff].content_digest
        self._verdict = self._load_or_judge(digest)
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
            severity=dg.AssetCheckSeverity.WARN,
            description=" ".join(verdict.reasons),
            metadata={"digest": verdict.digest, "cutoff": verdict.cutoff},
        )
        return [check]

    def _load_or_judge(self, digest: str) -> Verdict:
        """Return the recorded verdict on a bundle, or make and record one."""
        verdict = self.product.history.verdict(digest)
        if verdict is not None:
            self.context.log.info(f"{digest} was judged before; its verdict is final.")
            return verdict
        try:
            signing.private_key(self.product.settings)  # refuse a wrong key before a judgement of minutes
            verdict = judge(self.product, digest)
            signing.write_verdict(self.product, digest, verdict)
        except RecordExists:
            verdict = self.product.history.verdict(digest)
            assert verdict is not None  # records are never removed
        return verdict


def judge(product: ProductStore, digest: str) -> Verdict:
    """Judge a bundle on its holdout, against its baselines and the live champion."""
    maker = Evaluating.for_product(product.spec, measures_of(product.spec.task))
    champion, reasons = maker.champion(product.artifacts, product.history, digest)
    if champion:
        _check_unseen(product, champion, product.artifacts.bundle(digest))
    return maker.verdict(product.artifacts, product.tables, digest, champion, reasons)


def _check_unseen(product: ProductStore, champion: str, challenger: Bundle) -> None:
    """Refuse a champion that was trained on rows of this holdout: its numbers would be too good."""
    overlap = set(product.artifacts.bundle(champion).manifest["training_keys"]) & set(
        challenger.manifest["holdout_keys"]
    )
    if overlap:
        raise dg.Failure(
            f"the live model {champion} was trained on {counted(len(overlap), 'key')} of this holdout "
            f"({span(sorted(overlap))}), so cutoff {challenger.manifest['cutoff']} cannot be judged against it. "
            "Choose a later cutoff."
        )
