"""Build the model's inputs for every entity of a key, from what was known when it is asked about.

Reads the validated rows of the key and of `lookback` keys before it, and the slow tables. The window is complete
or the step fails, naming the keys that are not there; only at the start of history is it shorter. A source's rows of
a key that was nulled after a fault are left out.

A row with a value that its field does not declare (a null of a field that is not nullable, a number out of range or not
finite) is put aside, counted by reason: of such a row a service refuses the request. The rest is written, and a key of
which too many were put aside is faulty (`undeclared_values`): the step does not fail, for the key must be judged.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from typing import Any

import dagster as dg
import polars as pl

from platform_assets import naming, partitions
from platform_assets.compute import declared
from platform_assets.specs.base import FeatureTables, ProductSpec, Source, Window
from platform_assets.stages import fields, holds, ranges
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.tables import TableStore
from resources.store import StoreResource

STAGE = "features"
NULLED = "nulled"
"""Stands for the digest of rows that are left out."""

ABOUT_A_ROW = {
    "entity": "what one prediction is about",
    "service_time": "when the entity is served; its key follows from it (UTC)",
    "asked_at": "the moment of the question: nothing known later is seen (UTC)",
}


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's features."""
    code = fields.code_of(spec, __name__)
    back = partitions.mapping(spec.grain, lookback=spec.lookback)
    types = dict(zip(ABOUT_A_ROW, ("text", "moment", "moment"), strict=True)) | {f.name: f.dtype for f in spec.fields}
    shared = fields.asset_args(
        spec,
        STAGE,
        system=naming.DATA,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        code=code,
        deps=[
            fields.dep(spec, "validated", source.name, mapping=None if source.is_slow else back)
            for source in spec.feature_sources
        ],
        metadata=fields.column_schema(types, ABOUT_A_ROW | {item.name: item.description for item in spec.fields}),
    )

    @dg.asset(**shared, **fields.keyed(spec))
    def features(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[Any]:
        tables, ledgers = store.tables(spec.name), store.ledgers(spec.name)

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            digests = _digests(spec, tables, chunk)
            nulled = holds.nulled(tables, ledgers, spec.grain.with_lookback(chunk, spec.lookback))
            return ranges.Plan(
                inputs={key: _inputs(spec, digests, nulled, key) for key in chunk},
                make=lambda stale: {STAGE: _made(spec, tables, digests, nulled, stale)},
            )

        done = ranges.advance(context, tables, [STAGE], ranges.keys_of(context), code, plan)
        return ranges.report(context, done, STAGE, shared["key"])

    return [features]


def _digests(spec: ProductSpec, tables: TableStore, keys: tuple[str, ...]) -> dict[Source, dict[str, str]]:
    """Return for each source what the keys that are looked back on hold; complete or an error."""
    return {
        source: {
            key: record.content_digest
            for key, record in ranges.require(tables, _stage(source), _reach(spec, source, keys)).items()
        }
        for source in spec.feature_sources
    }


def _inputs(
    spec: ProductSpec, digests: dict[Source, dict[str, str]], nulled: dict[str, str], key: str
) -> dict[str, str]:
    """Return one digest a source: of all that the key looks back on."""
    return {
        _stage(source): sha256(
            canonical(
                [
                    [seen, NULLED if nulled.get(seen) == source.name else held[seen]]
                    for seen in _reach(spec, source, (key,))
                ]
            )
        )
        for source, held in digests.items()
    }


def _made(
    spec: ProductSpec,
    tables: TableStore,
    digests: dict[Source, dict[str, str]],
    nulled: dict[str, str],
    keys: tuple[str, ...],
) -> ranges.Made:
    frames: dict[str, pl.DataFrame] = {}
    notes: dict[str, dict[str, Any]] = {}
    for run in ranges.contiguous(spec.grain, keys):
        read = {
            source.name: tables.read_exact(_stage(source), {key: held[key] for key in _reach(spec, source, run)})
            for source, held in digests.items()
        }
        for key, source_name in nulled.items():
            read[source_name] = read[source_name].filter(pl.col("key") != key)
        built = spec.features(FeatureTables(spec, read), Window(grain=spec.grain, keys=run))
        expected = ["key", *ABOUT_A_ROW, *(item.name for item in spec.fields)]
        if built.columns != expected:
            raise ValueError(
                f"features of {spec.name} returned columns {built.columns}; expected {expected}. "
                "Mend `features` or `fields` in the product's file."
            )
        for key, rows in ranges.by_key(built, run, f"features of {spec.name}").items():
            frames[key], reasons = declared.split(rows, spec.fields)
            notes[key] = declared.notes(reasons)
    return ranges.Made(frames=frames, notes=notes)


def _stage(source: Source) -> str:
    return naming.stage("validated", source.name)


def _reach(spec: ProductSpec, source: Source, keys: tuple[str, ...]) -> tuple[str, ...]:
    return (naming.UNPARTITIONED,) if source.is_slow else spec.grain.with_lookback(keys, spec.lookback)
