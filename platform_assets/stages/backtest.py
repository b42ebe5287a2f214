"""Replay history under every retraining policy, and show what each policy gains for its CPU seconds.

Every decision could have trained one model; each of these is trained once, by the code of the training step, and
memoised. A policy then only chooses among them: never, always, every n keys, by performance, by drift, or the product's
own. Each is compared with an even calendar of as many trainings and with random ones, because a policy that a calendar
beats is not worth its complexity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.engine.stage import Run, Stage, dep
from platform_assets.facts import unlabelled
from platform_assets.handle import Product
from platform_assets.makers.checkpoint import Learning
from platform_assets.profiles import profile
from platform_assets.show import backtest as shown_backtest
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.training import fits as backtest_fits

STAGE = "backtest"


class BacktestConfig(dg.Config):
    """The keys over which policies are replayed; empty means the whole history.

    Attributes:
        first_cutoff: of the first model that answers; by default the earliest with enough labelled keys before it.
        last_key: the last key to score; by default the newest with labels.
    """

    first_cutoff: str = ""
    last_key: str = ""


def build(spec: ProductSpec) -> list[Any]:
    """Return the product's backtest asset and the job that runs it alone."""
    assets = Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("torch", "polars"),
        doc=__doc__,
        maker=Learning.of(spec),
        run=_Run,
        deps=[dep(spec, "features"), dep(spec, "outcomes")],
        config=BacktestConfig,
        needs=["launcher"],
        pool=naming.pool(spec.training.profile),
    ).assets()
    job = dg.define_asset_job(
        naming.job("backtest", spec.name),
        selection=assets,
        description=f"Replay the history of {spec.title} under every retraining policy.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
    return [*assets, job]


class _Run(Run[Learning]):
    def work(self) -> Iterable[dg.MaterializeResult]:
        """Train missing models, replay every policy over them, and report what each is worth."""
        from platform_assets.compute import backtest as replay
        from platform_assets.compute import backtest_outcomes, backtest_policies
        from platform_assets.steps import scores

        product, spec = self.product, self.spec
        size = profile(spec.training.profile)
        first, last = span(product, self.config)
        keys = spec.grain.span(spec.grain.first, last)
        excluded = {*product.history.excluded(keys), *unlabelled.missing(product.tables, keys)}
        requests = backtest_fits.requests(product, first, last, excluded, self.launcher.libraries(size))
        fits = backtest_fits.fits(self.context, product, self.launcher, requests)
        past = replay.from_scores(
            spec.task,
            {cutoff: scores.read(product.artifacts, fit.scores) for cutoff, fit in fits.items()},
            {cutoff: fit.cpu_s for cutoff, fit in fits.items()},
        )
        index_of = backtest_fits.drift_reader(product, requests, fits)
        plans = backtest_policies.plans(past, spec, index_of)
        outcomes = [backtest_outcomes.outcome(past, name, plan) for name, plan in plans.items()]
        current = next(outcome for outcome in outcomes if outcome.policy == backtest_policies.OWN)
        sentences = backtest_outcomes.sentences(current, [outcome for outcome in outcomes if outcome is not current])
        for line in sentences:
            self.context.log.info(line)
        digest = sha256(canonical({cutoff: [fit.fit, fit.scores] for cutoff, fit in fits.items()}))
        metadata = shown_backtest.metadata(past, list(fits), outcomes, sentences)
        return [dg.MaterializeResult(data_version=dg.DataVersion(digest), metadata=metadata)]


def span(product: Product, config: BacktestConfig) -> tuple[str, str]:
    """Return the first cutoff and the last key to score.

    Raises:
        ValueError: no labels, or too few to train twice.
    """
    spec = product.spec
    grain = spec.grain
    labelled = product.tables.records("outcomes")
    if not labelled:
        raise ValueError(f"{spec.name} has no labelled key yet; advance some before a backtest.")
    earliest = grain.key_at(spec.min_keys + spec.label_delay)
    first = config.first_cutoff or earliest
    last = config.last_key or max(labelled, key=grain.index)
    if grain.index(last) < grain.index(first) + spec.retraining.decide_every:
        raise ValueError(
            f"a backtest of {spec.name} from cutoff {first} to key {last} holds no decision; expected at least "
            f"{spec.retraining.decide_every + 1} labelled keys from the first cutoff on."
        )
    return first, last
