"""Judge each key: whether what landed is sound, and how far its features are from what the live model was trained on.

Hard checks compare a sketch of every source with the accepted keys before it; one that fails makes the key faulty:
it is held, out of reference and training, until it is repaired or accepted. After `repair_within` keys the faulty
source is left out, or, with broken labels, the key. One drift index ranks the newest keys' features among contiguous
windows of the training keys, another one the mix of the answers that were served. A judgement stands until the key's
own data change: late labels are judged when they land, against the same model.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from platform_assets import digests, naming
from platform_assets.engine import fields, ranges
from platform_assets.makers.drift import COLUMNS, PSI, TYPES, Judging
from platform_assets.show import values
from platform_assets.show.drift_plots import drift_chart
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import TableStore
from resources.store import StoreResource

STAGE = "drift"
CHECK = "no_faults"
MOST_SHOWN = 20


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's judgement of keys."""
    maker = Judging.of(spec)
    code = digests.of(maker)
    shared = fields.asset_args(
        spec,
        STAGE,
        system=naming.MONITORING,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        code=code,
        deps=[
            *(fields.dep(spec, "validated", source.name) for source in spec.sources if not source.is_slow),
            fields.dep(spec, "features"),
            fields.dep(spec, "predictions"),
        ],
        metadata=values.column_schema({name: str(dtype) for name, dtype in TYPES.items()}, COLUMNS),
    )
    checks = [
        dg.AssetCheckSpec(
            CHECK,
            asset=dg.AssetKey(shared["key"]),
            description="No key of the run has a fault. Blocks nothing: a faulty key is held.",
        )
    ]

    @dg.asset(**shared, **fields.keyed(spec), check_specs=checks)
    def drift(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult[Any]]:
        tables, keys = store.tables(spec.name), ranges.keys_of(context)

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            judge = maker.judge(store, chunk)
            judge.heal()
            return ranges.Plan(
                inputs={key: judge.inputs(key) for key in chunk},
                make=lambda stale: {STAGE: maker.make(judge, stale)},
                is_whole=lambda record: store.artifacts.is_whole(record.notes["sketch"], compressed=True),
            )

        done = ranges.advance(context, tables, [STAGE], keys, code, plan)
        if keys[-1] not in done.memoised:
            told = _newest(spec, tables, keys[-1])
            context.add_asset_metadata(told, asset_key=shared["key"], partition_key=keys[-1])
        yield ranges.report(context, done, STAGE, shared["key"], check_results=[_result(done)])

    return [drift]


def _newest(spec: ProductSpec, tables: TableStore, key: str) -> dict[str, Any]:
    """Return what the newest key of a run shows besides: drift by key up to it, and its checks."""
    around = tables.records(STAGE, spec.grain.with_lookback((key,), spec.monitors.record_keys))
    drawn = drift_chart({each: record.notes for each, record in around.items()})
    return {"drift": values.image(drawn, "drift index by key"), "checks": _table(tables.read(STAGE, [key]))}


def _table(rows: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Return what failed and the farthest fields; all that passed is in the table itself."""
    shown = rows.filter(pl.col("is_failing") | (pl.col("check") == PSI)).head(MOST_SHOWN)
    return values.table(shown.drop("key").to_dicts(), columns=list(COLUMNS))


def _result(done: ranges.Advance) -> dg.AssetCheckResult:
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
