"""Judge each key: whether what landed is sound, and how far its features are from what the live model was trained on.

Hard checks compare a sketch of every source with the accepted keys before it; one that fails makes the key faulty:
it is held, out of reference and training, until it is repaired or accepted. After `repair_within` keys the faulty
source is left out, or, with broken labels, the key. One drift index ranks the newest keys' features among contiguous
windows of the training keys, another one the mix of the answers that were served. A judgement stands until the key's
own data change: late labels are judged when they land, against the same model.
"""

from __future__ import annotations

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Shown
from platform_assets.engine.stage import Stage, asset, dep
from platform_assets.makers.drift import COLUMNS, PSI, TYPES, Judging
from platform_assets.show import values
from platform_assets.show.drift_plots import drift_chart
from platform_assets.specs.base import ProductSpec

STAGE = "drift"
CHECK = "no_faults"
MOST_SHOWN = 20


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's judgement of keys."""
    stage = Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=Judging.of(spec),
        run=_Run,
        deps=[
            *(dep(spec, "validated", source.name) for source in spec.sources if not source.is_slow),
            dep(spec, "features"),
            dep(spec, "predictions"),
        ],
        metadata=values.column_schema({name: str(dtype) for name, dtype in TYPES.items()}, COLUMNS),
        checks={CHECK: "No key of the run has a fault. Blocks nothing: a faulty key is held."},
    )
    return [asset(stage)]


class _Run(KeyedRun[Judging]):
    def plan(self, chunk: Keys) -> Plan:
        judge = self.maker.judge(self.store, chunk)
        judge.heal()
        return Plan(
            inputs={key: judge.inputs(key) for key in chunk},
            make=lambda stale: {STAGE: self.maker.make(judge, stale)},
            is_whole=lambda record: self.store.artifacts.is_whole(record.notes["sketch"], compressed=True),
        )

    def shows(self, done: Advance) -> Shown:
        """Return one result for the run, and show what its newest key looks like when that was made."""
        if self.keys[-1] not in done.memoised:
            self.show(self._newest(self.keys[-1]), self.keys[-1])
        return Shown(checks=[_result(done)])

    def _newest(self, key: str) -> values.Metadata:
        """Return what the newest key of a run shows besides: drift by key up to it, and its checks."""
        around = self.tables.records(STAGE, self.spec.grain.with_lookback((key,), self.spec.monitors.record_keys))
        drawn = drift_chart({each: record.notes for each, record in around.items()})
        return {
            "drift": values.image(drawn, "drift index by key"),
            "checks": _table(self.tables.read(STAGE, [key])),
        }


def _table(rows: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Return what failed and the farthest fields; all that passed is in the table itself."""
    shown = rows.filter(pl.col("is_failing") | (pl.col("check") == PSI)).head(MOST_SHOWN)
    return values.table(shown.drop("key").to_dicts(), columns=list(COLUMNS))


def _result(done: Advance) -> dg.AssetCheckResult:
    """Return one result for the run: the keys with a fault, and the primary one of each."""
    faulty = {key: record.notes for key, record in done.records[STAGE].items() if record.notes["is_faulty"]}
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not faulty,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(faulty)} of {len(done.keys)} keys have a fault.",
        metadata={
            "keys_judged": len(done.keys),
            "keys_faulty": len(faulty),
            "faulty": values.table(
                [{"key": key, **notes["primary"]} for key, notes in list(faulty.items())[:MOST_SHOWN]]
            ),
        },
    )
