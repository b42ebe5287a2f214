"""Show the newest search for better settings: what it tried, the best trial, and the change of the product's file that
a person may commit.

`driftline tune` searches, outside of the loop, and reports here; materialising this asset shows the records again.
Trials learn from training keys alone and are judged on the last of them, before the holdout, so the evaluation of a
model with the new settings is still honest. Nothing changes until the product's file does.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from platform_assets import naming
from platform_assets.engine.stage import Run, Stage, dep
from platform_assets.show import tuning as shown_tuning
from platform_assets.specs.base import ProductSpec

STAGE = "tuning"


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's tuning asset."""
    return Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("optuna", "matplotlib"),
        doc=__doc__,
        modules=["platform_assets.records.tunings"],
        run=_Run,
        deps=[dep(spec, stage) for stage in ("features", "outcomes")],
    ).assets()


class _Run(Run[None]):
    def work(self) -> Iterable[dg.MaterializeResult]:
        """Read the newest search and its trials, and report them."""
        tuning = self.product.history.tuning()
        trials = [] if tuning is None else [trial for _, trial in self.product.history.trials(tuning.study)]
        if tuning is None or not trials:
            raise dg.Failure(
                f"{self.spec.name} has no trial on record; declare `search` in its file and run "
                f"`driftline tune {self.spec.name} --cutoff KEY`.",
                allow_retries=False,
            )
        version = dg.DataVersion(f"{tuning.study}.{len(trials)}")
        return [dg.MaterializeResult(data_version=version, metadata=shown_tuning.metadata(self.spec, tuning, trials))]
