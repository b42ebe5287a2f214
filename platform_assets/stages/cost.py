"""Say what the product's trainings cost: in all, for each accepted model, on spot nodes, in lost work, in waiting.

Every try at a step is a record of the attempts ledger with its time and the price of its profile. An accepted model
cost all that was tried since the one before it, with failures, interrupted tries and models that lost their
evaluation. What was spent since the newest is open. Backtests are counted beside, for they make no model. Prices are
list prices of the profiles; months are those of the budget: a training counts for the month of its cutoff.

Made at the end of each `retrain__product`, after the release. After a run that failed, and after a backtest, the sensor
`costs` launches `cost__product`; so may a person.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from typing import Any

import dagster as dg

from platform_assets import digests, naming
from platform_assets.engine import fields
from platform_assets.history import money
from platform_assets.show import cost as cost_metadata
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256
from resources.store import StoreResource

STAGE = "cost"


def build(spec: ProductSpec) -> list[Any]:
    """Return the product's cost asset and the job that makes it alone."""
    code = digests.of_modules("platform_assets.compute.costs")

    @dg.asset(
        **fields.asset_args(
            spec,
            STAGE,
            system=naming.MONITORING,
            kinds=("matplotlib",),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, stage) for stage in ("checkpoint", "release", "backtest")],
        ),
    )
    def cost(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        history = store.history(spec.name)
        before = history.kept()
        found = history.gathered(before)
        if found != before:
            store.ledgers(spec.name).keep(money.GATHERED, {money.FORMAT: money.kept_format(), money.RECORDS: found})
        metadata = cost_metadata.told(
            spec,
            cost_metadata.Records(
                attempts=money.attempts(found),
                backtests=money.attempts(found, naming.BACKTEST_ATTEMPTS),
                releases=money.releases(found),
                overspendings=money.overspendings(found),
            ),
        )
        context.log.info(f"{metadata['attempts']} attempts, {metadata.get('total_usd', 0.0):.4f} USD.")
        return dg.MaterializeResult(data_version=dg.DataVersion(sha256(canonical(dict(found)))), metadata=metadata)

    job = dg.define_asset_job(
        naming.job(STAGE, spec.name),
        selection=[cost],
        description=f"Say what the trainings of {spec.title} cost so far.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
    return [cost, job]
