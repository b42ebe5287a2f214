"""Replay history under every retraining policy, and show what each would have bought for its CPU seconds.

At every decision one model could have been trained; each is trained once, by the lines of the training step, and
memoised. A policy then only chooses among them: never, always, every so many keys, by performance, by drift, or the
product's own. Each stands beside an even calendar of as many trainings and beside random ones, because a policy that
a calendar beats is not worth its complexity.
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
from platform_assets.show import backtest as shown_backtest
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.training import fits as backtest_fits

STAGE = "backtest"


class BacktestConfig(dg.Config):
    """Over which keys policies are replayed; empty means as far as the history goes.

    Attributes:
        first_cutoff: of the model that answers first; by default the earliest with enough labelled keys before it.
        last_key: the last one that is scored; by default the newest with labels.
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
        """Make the fits that are missing, replay every policy over them, and tell what each is worth."""
        from platform_assets.compute import backtest as replay
        from platform_assets.compute import backtest_outcomes, backtest_policies
        from platform_assets.steps import scores

        product, spec = self.product, self.spec
        first, last = span(product, self.config)
        keys = spec.grain.span(spec.grain.first, last)
        out = {*product.history.excluded(keys), *unlabelled.missing(product.tables, keys)}
        asked = backtest_fits.requests(product, first, last, out, self.launcher.libraries())
        made = backtest_fits.fits(self.context, product, self.launcher, asked)
        past = replay.from_scores(
            spec.task,
            {cutoff: scores.read(product.artifacts, found.scores) for cutoff, found in made.items()},
            {cutoff: found.cpu_s for cutoff, found in made.items()},
        )
        index_of = backtest_fits.drift_reader(product, asked, made)
        plans = backtest_policies.plans(past, spec, index_of)
        outcomes = [backtest_outcomes.outcome(past, name, plan) for name, plan in plans.items()]
        own = next(each for each in outcomes if each.policy == backtest_policies.OWN)
        told = backtest_outcomes.sentences(own, [each for each in outcomes if each is not own])
        for line in told:
            self.context.log.info(line)
        digest = sha256(canonical({cutoff: [found.fit, found.scores] for cutoff, found in made.items()}))
        metadata = shown_backtest.metadata(past, list(made), outcomes, told)
        return [dg.MaterializeResult(data_version=dg.DataVersion(digest), metadata=metadata)]


def span(product: Product, config: BacktestConfig) -> tuple[str, str]:
    """Return the first cutoff and the last key to score.

    Raises:
        ValueError: nothing has labels, or too little to train twice.
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
