"""Make a model with a passing verdict the live one: the newest record of the release ledger.

Materialised with a cutoff, it releases that cutoff's bundle, or keeps the champion and says why. Materialised
without one (job `release__product`) it releases the digest in its config, on a person's request, but only with a
passing verdict. Before either, the bundle answers logged requests. The running service follows the ledger by itself; a
rollback writes the next record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.problems import RecordExists
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.requesters import person_of, requester_of
from platform_assets.engine.stage import Run, Stage, dep
from platform_assets.evaluation import releases, signing, verdicts
from platform_assets.product.spec import Product
from platform_assets.serving import trials
from platform_assets.store.records.releases import Release
from platform_assets.store.records.verdicts import Verdict

STAGE = "release"
NEWEST_SHOWN = 12
ALREADY_LIVE = "already_live"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A bundle that was not released, why, and the live model's digest; None without one."""

    digest: str
    reasons: Sequence[str]
    champion: str | None


@dataclass(frozen=True, kw_only=True)
class Live:
    """The live release.

    Attributes:
        number, record: of the release.
        newest: releases with their numbers, the newest first.
        outcome: of the run: released, rolled back or already live.
        needs_new_bento: whether the contract differs from the previous release's.
        trial: how the bundle answered logged requests; empty if it was not asked.
    """

    number: int
    record: Release
    newest: Sequence[tuple[int, Release]]
    outcome: str
    needs_new_bento: bool = False
    trial: str = ""


class ReleaseConfig(dg.Config):
    """A person's request; leave it empty when the run has a cutoff."""

    digest: str = ""
    why: str = ""


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's release stage."""
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.SERVING,
        kinds=("bentoml",),
        doc=__doc__,
        modules=["platform_assets.evaluation.releases"],
        run=_ReleaseRun,
        outside=outside,
        deps=[dep(spec, "evaluation"), dep(spec, "service")],
        config=ReleaseConfig,
    )


def job(spec: Product) -> Any:
    """Return the job that releases a digest on a person's request."""
    return dg.define_asset_job(
        naming.job("release", spec.name),
        selection=dg.AssetSelection.assets(dg.AssetKey(naming.asset_key(spec.name, STAGE))),
        description=f"Release a digest of {spec.title} that has a passing verdict.",
        executor_def=dg.in_process_executor,  # the default one costs 2 s per step
    )


class _ReleaseRun(Run[None]):
    def work(self) -> Iterable[dg.MaterializeResult]:
        """Release the requested digest, or what the cutoff's verdict allows."""
        context, config, product = self.context, self.config, self.spec.name
        settings = self.product.settings
        if config.digest:
            author = person_of(context, settings, f"a release of {product} by digest")
            verdict = verdicts.releasable_verdict(self.product.artifacts, self.product.history, config.digest)
            try:
                return [self._publish(verdict, reason=config.why or "requested by digest", author=author)]
            except trials.Refused as refused:
                raise dg.Failure(
                    f"{config.digest} is not released: {refused}",
                    metadata={"digest": config.digest, "passed": verdict.passed},
                ) from None
        if not context.has_partition_key:
            raise dg.Failure(
                f"release of {product} has neither a cutoff nor a digest. Run {naming.job('retrain', product)} for "
                f"a cutoff, or {naming.job('release', product)} with a digest in the config of this asset."
            )
        cutoff = context.partition_key
        verdict = verdicts.verdict_of_cutoff(self.tables, self.product.history, cutoff)
        if not verdict.passed:
            return [self._keep_champion(verdict.digest, verdict.reasons)]
        author = requester_of(context, settings).name
        try:
            return [self._publish(verdict, reason=f"passed its evaluation for cutoff {cutoff}", author=author)]
        except trials.Refused as refused:
            return [self._keep_champion(verdict.digest, [str(refused)])]

    def _publish(self, verdict: Verdict, *, reason: str, author: str) -> dg.MaterializeResult:
        """Write the next release record; a concurrent release is noticed, never overwritten.

        Raises:
            trials.Refused: the bundle does not answer logged requests; that is on record.
        """
        spec = self.spec
        bundle = self.product.artifacts.bundle(verdict.digest)
        contract = bundle.manifest["contract_sha256"]
        latest = self.product.history.live()
        trial = ""
        if latest is None or latest[1].digest != bundle.digest:  # what is live has answered requests
            try:
                trial = trials.trial_of(self.product, bundle.digest)
            except trials.Refused as refused:
                trials.refuse(self.product, bundle.digest, bundle.manifest["cutoff"], str(refused), author)
                raise
            self.context.log.info(f"{bundle.digest}: {trial}")
        while True:
            latest = self.product.history.live()
            if latest is not None and latest[1].digest == bundle.digest:
                return self._result(*latest, outcome=ALREADY_LIVE)
            record = releases.next_release(
                product=spec.name,
                digest=bundle.digest,
                contract_sha256=contract,
                cutoff=bundle.manifest["cutoff"],
                reason=reason,
                author=author,
                at=self.product.now,
                previous=latest[0] if latest else None,
            )
            with suppress(RecordExists):  # another release took the number
                number, record = signing.write_release(self.product, record, self.context.log.warning)
                self.context.log.info(f"release {number} has bundle {record.digest}.")
                needs_bento = latest is not None and latest[1].contract_sha256 != contract
                return self._result(number, record, outcome=record.outcome, needs_new_bento=needs_bento, trial=trial)

    def _keep_champion(self, digest: str, reasons: Sequence[str]) -> dg.MaterializeResult:
        latest = self.product.history.live()
        kept = "no model is live yet" if latest is None else "the champion is kept"
        self.context.log.warning(f"{kept}: {' '.join(reasons)} See `driftline status {self.spec.name}`.")
        champion = None if latest is None else latest[1].digest
        return dg.MaterializeResult(metadata=self.page(Kept(digest=digest, reasons=reasons, champion=champion)))

    def _result(
        self, number: int, record: Release, *, outcome: str, needs_new_bento: bool = False, trial: str = ""
    ) -> dg.MaterializeResult:
        live = Live(
            number=number,
            record=record,
            newest=self.product.history.newest_releases(NEWEST_SHOWN),
            outcome=outcome,
            needs_new_bento=needs_new_bento,
            trial=trial,
        )
        return dg.MaterializeResult(data_version=dg.DataVersion(str(number)), metadata=self.page(live))


def event_of(product: str, number: int, record: Release) -> dg.AssetMaterialization:
    """Return the materialisation that shows a release that no run made in the UI."""
    return dg.AssetMaterialization(
        asset_key=naming.asset_key(product, STAGE),
        description=record.why,
        metadata={
            "outcome": record.outcome,
            "release": number,
            "digest": record.digest,
            "cutoff": record.cutoff,
            "why": record.why,
            "by": record.by,
        },
    )
