"""Say what the product's trainings cost: in all, for each accepted model, on spot nodes, in lost work, in waiting.

Every try at a step is a record of the attempts ledger with its time and the price of its profile. An accepted model
cost all that was tried since the one before it, with failures, interrupted tries and models that lost their
evaluation. What was spent since the newest is open. Backtests are counted beside, for they make no model. Prices are
list prices of the profiles; months are those of the budget: a training counts for the month of its cutoff.

Made at the end of each `retrain__product`, after the release. After a run that failed, and after a backtest, the sensor
`costs` launches `cost__product`; so may a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.engine.stage import Run, Stage, dep
from platform_assets.history import money
from platform_assets.show import cost as shown_cost
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256

STAGE = "cost"


def build(spec: ProductSpec) -> list[Any]:
    """Return the product's cost asset and the job that makes it alone."""
    assets = Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("matplotlib",),
        doc=__doc__,
        modules=["platform_assets.compute.costs"],
        run=_Run,
        deps=[dep(spec, stage) for stage in ("checkpoint", "release", "backtest")],
    ).assets()
    job = dg.define_asset_job(
        naming.job(STAGE, spec.name),
        selection=assets,
        description=f"Say what the trainings of {spec.title} cost so far.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
    return [*assets, job]


class _Run(Run[None]):
    def work(self) -> Iterable[dg.MaterializeResult]:
        """Read what came since the last run, and tell what everything cost."""
        before = self.product.history.cached()
        found = self.product.history.updated_cache(before)
        if found != before:
            kept = {money.FORMAT: money.cache_format(), money.RECORDS: found}
            self.product.ledgers.write_cost_file(money.CACHE_NAME, kept)
        records = shown_cost.Records(
            attempts=money.attempts(found),
            backtests=money.backtests(found),
            releases=money.releases(found),
            overspendings=money.overspendings(found),
        )
        metadata = shown_cost.metadata(self.spec, records)
        self.context.log.info(f"{metadata['attempts']} attempts, {metadata.get('total_usd', 0.0):.4f} USD.")
        return [dg.MaterializeResult(data_version=dg.DataVersion(sha256(canonical(dict(found)))), metadata=metadata)]
