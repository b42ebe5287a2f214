"""Replay history under every retraining policy, and show what each would have bought for its CPU seconds.

At every decision one model could have been trained; each is trained once, by the lines of the training step, and
memoised. A policy then only chooses among them: never, always, every so many keys, by performance, by drift, or the
product's own. Each stands beside an even calendar of as many trainings and beside random ones, because a policy that
a calendar beats is not worth its complexity.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import digests, naming
from platform_assets.engine import fields
from platform_assets.facts import unlabelled
from platform_assets.makers.checkpoint import Learning
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.tables import TableStore
from platform_assets.training import fits as backtest_fits
from resources.launchers import StepLauncher
from resources.store import StoreResource

if TYPE_CHECKING:
    from platform_assets.compute.backtest import Past, Plan
    from platform_assets.compute.backtest_outcomes import Outcome

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
    code = digests.of(Learning.of(spec))

    @dg.asset(
        **fields.asset_args(
            spec,
            STAGE,
            system=naming.MONITORING,
            kinds=("torch", "polars"),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, "features"), fields.dep(spec, "outcomes")],
        ),
        pool=naming.pool(spec.training.profile),
    )
    def backtest(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        launcher: dg.ResourceParam[StepLauncher],
        config: BacktestConfig,
    ) -> dg.MaterializeResult:
        from platform_assets.compute import backtest as replay
        from platform_assets.compute import backtest_outcomes, backtest_policies
        from platform_assets.steps import scores

        tables = store.tables(spec.name)
        first, last = span(spec, tables, config)
        keys = spec.grain.span(spec.grain.first, last)
        out = {*store.history(spec.name).out(keys), *unlabelled.missing(tables, keys)}
        asked = backtest_fits.requests(spec, tables, first, last, out, launcher.libraries())
        made = backtest_fits.fits(context, spec, store, launcher, asked)
        past = replay.from_scores(
            spec.task,
            {cutoff: scores.read(store.artifacts, found["scores"]) for cutoff, found in made.items()},
            {cutoff: found["cpu_s"] for cutoff, found in made.items()},
        )
        index_of = backtest_fits.drift_reader(spec, store, tables, asked, made)
        plans = backtest_policies.plans(past, spec, index_of)
        outcomes = [backtest_outcomes.outcome(past, name, plan) for name, plan in plans.items()]
        own = next(each for each in outcomes if each.policy == backtest_policies.OWN)
        told = backtest_outcomes.sentences(own, [each for each in outcomes if each is not own])
        for line in told:
            context.log.info(line)
        digest = sha256(canonical({cutoff: [found["fit"], found["scores"]] for cutoff, found in made.items()}))
        return _result(past, list(made), outcomes, told, digest)

    job = dg.define_asset_job(
        naming.job("backtest", spec.name),
        selection=[backtest],
        description=f"Replay the history of {spec.title} under every retraining policy.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
    return [backtest, job]


def span(spec: ProductSpec, tables: TableStore, config: BacktestConfig) -> tuple[str, str]:
    """Return the first cutoff and the last key to score.

    Raises:
        ValueError: nothing has labels, or too little to train twice.
    """
    grain = spec.grain
    labelled = tables.records("outcomes")
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


def _result(
    past: "Past", cutoffs: Sequence[str], outcomes: Sequence["Outcome"], told: Sequence[str], digest: str
) -> dg.MaterializeResult:
    from platform_assets.compute.backtest import even, random_plans
    from platform_assets.show import backtest_plots

    def points(plans: Sequence["Plan"]) -> list[tuple[float, float]]:
        return [(past.cost_s(plan), past.log_loss(plan)) for plan in plans]

    drawn = [plan for count in {each.retrainings for each in outcomes} for plan in random_plans(past, count)]
    evenly = [even(past, count) for count in range(past.fits)]
    chart = backtest_plots.quality_against_cost(outcomes, points(evenly), points(drawn))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest),
        metadata={
            "what_it_shows": dg.MetadataValue.md("\n".join(f"- {line}" for line in told)),
            "quality_against_cost": values.image(chart, "Log loss by CPU seconds of retraining"),
            "policies": values.table([each.row() for each in outcomes]),
            "cutoffs": values.table(
                [
                    {"policy": each.policy, "retrained_at": ", ".join(cutoffs[fit] for fit in each.plan[1:])}
                    for each in outcomes
                ]
            ),
            "fits": past.fits,
            "first_key": past.keys[0],
            "last_key": past.keys[-1],
            "rows": int(past.rows.sum()),
            "cpu_s_of_fits": round(sum(past.cpu_s), 1),
        },
    )
