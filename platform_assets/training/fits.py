"""Gather what a backtest replays: one scored fit per cutoff, and the drift index at each decision.

Composes the jobs, defines when two fits are the same, and starts missing steps. Policies and their value are
`compute.backtest*`; the asset is `stages.backtest`.
"""

from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import dagster as dg
from msgspec.structs import asdict

from platform_assets import digests, libraries, naming
from platform_assets.handle import Product
from platform_assets.makers.checkpoint import Learning
from platform_assets.makers.reading import require
from platform_assets.profiles import profile
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions
from platform_assets.steps.jobs import BacktestJob
from platform_assets.training import requests as requests_of
from resources.launchers import StepLauncher, Work

if TYPE_CHECKING:
    from platform_assets.compute.backtest_policies import Drift
    from platform_assets.steps.scores import FitScores

STEP = "platform_assets.steps.backtest"


def cutoffs(spec: ProductSpec, first: str, last: str) -> tuple[str, ...]:
    """Return the cutoffs policies choose from: the first, and one every `decide_every` keys up to the last."""
    return spec.grain.span(first, last)[:: spec.retraining.decide_every]


def requests(
    product: Product, first: str, last: str, out: Collection[str] = (), versions: Mapping[str, str] | None = None
) -> dict[str, BacktestJob]:
    """Compose the job of each cutoff: what to train on, and which keys to score.

    Args:
        first: the first cutoff, and the first scored key.
        last: the last scored key.
        out: held or dropped keys: never trained on, never scored.
        versions: of libraries, from the launcher; by default the ones installed here.

    Raises:
        ValueError: too few keys before the first cutoff.
        MissingPartitions: a key has no features or outcomes.
    """
    spec = product.spec
    keys = [key for key in spec.grain.span(first, last) if key not in out]
    content = {
        stage: {key: record.content_digest for key, record in require(product.tables, stage, keys).items()}
        for stage in ("features", "outcomes")
    }
    jobs, code = {}, digests.code_digest(Learning.of(spec))
    versions = libraries.installed() if versions is None else versions
    for cutoff in cutoffs(spec, first, last):
        training = requests_of.training_request(product, cutoff, out)
        later = [key for key in keys if spec.grain.index(key) >= spec.grain.index(cutoff)]
        jobs[cutoff] = BacktestJob(
            **asdict(training),
            fingerprint=requests_of.fingerprint(spec, code, training, versions, step="backtest"),
            scored_features={key: content["features"][key] for key in later},
            scored_outcomes={key: content["outcomes"][key] for key in later},
        )
    return jobs


def fits(
    context: dg.AssetExecutionContext, product: Product, launcher: StepLauncher, jobs: Mapping[str, BacktestJob]
) -> "dict[str, FitScores]":
    """Return each cutoff's fit: from its record, or by running its step now, one after the other."""
    from platform_assets.steps import scores

    ledgers, results = scores.ledgers_of(product.settings.root, product.name), {}
    size = profile(product.spec.training.profile)
    for number, (cutoff, job) in enumerate(jobs.items(), start=1):
        scored = {"features": job.scored_features, "outcomes": job.scored_outcomes}
        scored_fit = scores.find(product.artifacts, ledgers, job.fingerprint, **scored)
        if scored_fit is None:
            launcher.run(
                context=context,
                module=STEP,
                extras=instructions.to_extras(job, Learning.of(product.spec), launcher.libraries(size)),
                profile=size,
                work=Work(
                    product=product.name,
                    step="backtest",
                    cutoff=cutoff,
                    fingerprint=job.fingerprint,
                    ledger=naming.BACKTEST_ATTEMPTS,
                ),
            )
            scored_fit = scores.find(product.artifacts, ledgers, job.fingerprint, **scored)
            assert scored_fit is not None  # the launcher raises when the step did not end well
            context.log.info(f"fit {number} of {len(jobs)}, cutoff {cutoff}: {scored_fit.cpu_s:.1f} CPU s.")
        results[cutoff] = scored_fit
    return results


def drift_reader(
    product: Product, jobs: Mapping[str, BacktestJob], fits_by_cutoff: "Mapping[str, FitScores]"
) -> "Drift":
    """Return a function that measures the drift index at a decision against the champion's training keys.

    Rows are read once and counted lazily, per key and champion, because only policies that look at drift need them. The
    counts of two champions are cached, as policies look at one after the other.
    """
    spec = product.spec
    import polars as pl

    from platform_assets.compute import drift
    from platform_assets.compute.learn import Learned
    from platform_assets.compute.sketch import histograms

    cutoffs = list(jobs)
    usable = {key for job in jobs.values() for key in (*job.features, *job.scored_features)}
    keys = sorted(usable, key=spec.grain.index)

    @cache
    def rows() -> dict[str, pl.DataFrame]:
        frame = product.tables.read("features", keys, columns=[item.name for item in spec.fields])
        parts = frame.partition_by("key", as_dict=True)
        return {key: parts.get((key,), frame.clear()) for key in keys}

    @lru_cache(maxsize=2)
    def learned(champion: int) -> Learned:
        document = product.artifacts.get_json(fits_by_cutoff[cutoffs[champion]].fit)
        return Learned.from_json(product.artifacts.get_json(document["learned"]))

    @lru_cache(maxsize=2 * len(keys))
    def counts(champion: int, key: str) -> dict[str, list[int]]:
        return histograms(rows()[key], learned(champion))

    @lru_cache(maxsize=2)
    def reference(champion: int) -> drift.Reference:
        return drift.reference_of({key: counts(champion, key) for key in jobs[cutoffs[champion]].training_keys})

    def index_of(champion: int, fit: int) -> drift.Index:
        before = [key for key in keys if spec.grain.index(key) < spec.grain.index(cutoffs[fit])]
        window = {key: counts(champion, key) for key in before[-spec.monitors.drift_window :]}
        return drift.index(window, reference(champion), limit=spec.monitors.drift_limit, margin=spec.monitors.margin)

    return index_of
