"""Report what the product's trainings cost: in total, per accepted model, on spot nodes, in lost work, in waiting.

Every attempt at a step is a record of the attempts ledger with its time and the price of its profile. An accepted model
cost everything since the one before it, including failures, interrupted attempts and models that failed their
evaluation. Spending since the newest model is open. Backtests are counted separately, because they produce no model.
Prices are list prices of the profiles; months are those of the budget: a training counts for its cutoff's month.

Updated at the end of each `retrain__product`, after the release. After a failed run, and after a backtest, the sensor
`costs` launches `cost__product`; a person can too.
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
    """Return the product's cost asset and its job."""
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
        description=f"Report what the trainings of {spec.title} have cost so far.",
        tags={naming.TAG_PRODUCT: spec.name},
        executor_def=dg.in_process_executor,
    )
    return [*assets, job]


class _Run(Run[None]):
    def work(self) -> Iterable[dg.MaterializeResult]:
        """Read records written since the last run, and report all costs."""
        previous = self.product.history.cached()
        cache = self.product.history.updated_cache(previous)
        if cache != previous:
            document = {money.FORMAT: money.cache_format(), money.RECORDS: cache}
            self.product.ledgers.write_cost_file(money.CACHE_NAME, document)
        records = shown_cost.Records(
            attempts=money.attempts(cache),
            backtests=money.backtests(cache),
            releases=money.releases(cache),
            overspendings=money.overspendings(cache),
        )
        metadata = shown_cost.metadata(self.spec, records)
        self.context.log.info(f"{metadata['attempts']} attempts, {metadata.get('total_usd', 0.0):.4f} USD.")
        return [dg.MaterializeResult(data_version=dg.DataVersion(sha256(canonical(dict(cache)))), metadata=metadata)]
