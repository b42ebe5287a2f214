"""Make a model with a passing verdict the one that serves: the newest record of the release ledger.

Materialised with a cutoff, it releases that cutoff's bundle, or keeps the champion and says why. Materialised
without one (job `release__product`) it takes the digest of its config: a person's request, refused unless the
digest has a passing verdict. The running service follows the ledger by itself; rolling back writes the next record.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.compute import releases
from platform_assets.engine.stage import Run, Stage, asset, dep
from platform_assets.problems import RecordExists
from platform_assets.records.releases import RELEASES, Release
from platform_assets.records.verdicts import Verdict
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import ArtifactProblem
from platform_assets.storage.tables import MissingPartitions

STAGE = "release"
NEWEST_SHOWN = 12


class ReleaseConfig(dg.Config):
    """What a person asks for; leave all empty when the run has a cutoff."""

    digest: str = ""
    why: str = ""
    by: str = ""


def build(spec: ProductSpec) -> list[Any]:
    """Return the product's release asset and the job by which a person releases a digest."""
    stage = Stage(
        spec=spec,
        name=STAGE,
        system=naming.SERVING,
        kinds=("bentoml",),
        doc=__doc__,
        modules=["platform_assets.compute.releases"],
        run=_Run,
        deps=[dep(spec, "evaluation"), dep(spec, "service")],
        config=ReleaseConfig,
    )
    asked = dg.define_asset_job(
        naming.job("release", spec.name),
        selection=[release := asset(stage)],
        description=f"Release a digest of {spec.title} that has a passing verdict.",
        executor_def=dg.in_process_executor,
    )
    return [release, asked]


class _Run(Run[None]):
    def work(self) -> Iterable[dg.MaterializeResult]:
        """Release the digest that a person asks for, or what the cutoff's verdict allows."""
        context, config, product = self.context, self.config, self.spec.name
        by = config.by or context.run.tags.get("dagster/sensor_name") or f"run {context.run.run_id}"
        if config.digest:
            asked = self._asked_for(config.digest)
            return [self._publish(asked, why=config.why or "asked for by digest", by=by)]
        if not context.has_partition_key:
            raise dg.Failure(
                f"release of {product} has neither a cutoff nor a digest. Run {naming.job('retrain', product)} for "
                f"a cutoff, or {naming.job('release', product)} with a digest in the config of this asset."
            )
        cutoff = context.partition_key
        verdict = self._judged(cutoff)
        if not verdict.passed:
            context.log.warning(f"the champion is kept: {' '.join(verdict.reasons)}")
            return [self._kept(verdict)]
        return [self._publish(verdict, why=f"passed its evaluation for cutoff {cutoff}", by=by)]

    def _judged(self, cutoff: str) -> Verdict:
        """Return the verdict on a cutoff's bundle; refuse one that was not proved to serve."""
        tables, product = self.tables, self.spec.name
        stages = {name: tables.records(name, [cutoff]).get(cutoff) for name in ("onnx", "evaluation", "service")}
        if missing := [name for name, record in stages.items() if record is None]:
            raise MissingPartitions(product, " and ".join(missing), {cutoff})
        digest = stages["onnx"].content_digest  # type: ignore[union-attr]  # none is missing
        if stale := [name for name in ("evaluation", "service") if stages[name].inputs.get("bundle") != digest]:  # type: ignore[union-attr]  # as above
            raise dg.Failure(
                f"{' and '.join(stale)} of {cutoff} belong to another bundle than {digest}; "
                f"run {naming.job('retrain', product)} for this cutoff again."
            )
        return self._passing_or_not(digest)

    def _passing_or_not(self, digest: str) -> Verdict:
        product, verdict = self.spec.name, self.history.verdict(digest)
        if verdict is None:
            raise dg.Failure(
                f"{digest!r} has no verdict in {product}; only an evaluated bundle can be released. "
                f"Materialise its evaluation first ({naming.job('retrain', product)})."
            )
        return verdict

    def _asked_for(self, digest: str) -> Verdict:
        """Return the passing verdict of a digest that a person asks for, or refuse."""
        verdict = self._passing_or_not(digest)
        if not verdict.passed:
            raise dg.Failure(
                f"{digest} failed its evaluation and is not released: {' '.join(verdict.reasons)}",
                metadata={"digest": digest, "passed": False},
            )
        try:
            self.store.artifacts.bundle(digest)
        except ArtifactProblem as problem:
            raise dg.Failure(f"{digest} has a verdict but cannot be released: {problem}") from problem
        return verdict

    def _publish(self, verdict: Verdict, *, why: str, by: str) -> dg.MaterializeResult:
        """Write the next release record; somebody else's release in between is seen, never overwritten."""
        spec, ledgers = self.spec, self.store.ledgers(self.spec.name)
        bundle = self.store.artifacts.bundle(verdict.digest)
        contract = bundle.manifest["contract_sha256"]
        while True:
            latest = self.history.live()
            if latest is not None and latest[1].digest == bundle.digest:
                return self._result(*latest, outcome="already_live")
            record = releases.next_release(
                product=spec.name,
                digest=bundle.digest,
                contract_sha256=contract,
                cutoff=bundle.manifest["cutoff"],
                why=why,
                by=by,
                at=self.store.now(spec.name, is_live=spec.is_live),
                previous=latest[0] if latest else None,
            )
            number = latest[0] + 1 if latest else 1
            with suppress(RecordExists):
                ledgers.of(RELEASES).create_number(number, record)
                needs_bento = latest is not None and latest[1].contract_sha256 != contract
                return self._result(number, record, outcome=record.outcome, needs_new_bento=needs_bento)

    def _kept(self, verdict: Verdict) -> dg.MaterializeResult:
        latest = self.history.live()
        return dg.MaterializeResult(
            metadata={
                "outcome": "kept_champion",
                "challenger": verdict.digest,
                "champion": latest[1].digest if latest else "none",
                "reasons": values.bullets(verdict.reasons),
            }
        )

    def _result(
        self, number: int, record: Release, *, outcome: str, needs_new_bento: bool = False
    ) -> dg.MaterializeResult:
        shown = [
            {
                "release": at,
                "digest": item.digest[: releases.SHORT_DIGEST],
                "cutoff": item.cutoff,
                "outcome": item.outcome,
                "why": item.why,
                "by": item.by,
            }
            for at, item in self.history.newest_releases(NEWEST_SHOWN)
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(str(number)),
            metadata={
                "outcome": outcome,
                "release": number,
                "digest": record.digest,
                "cutoff": record.cutoff,
                "why": record.why,
                "by": record.by,
                "needs_new_bento": needs_new_bento,
                "releases": values.table(shown),
            },
        )
