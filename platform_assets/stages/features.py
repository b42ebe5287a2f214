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

from platform_assets import digests, naming, partitions
from platform_assets.engine import fields, ranges
from platform_assets.makers.features import ABOUT_A_ROW, Building
from platform_assets.makers.parts import Made, contiguous
from platform_assets.makers.reading import require
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.tables import TableStore
from resources.store import StoreResource

STAGE = "features"
NULLED = "nulled"
"""Stands for the digest of rows that are left out."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's features."""
    maker = Building.of(spec)
    code = digests.of(maker)
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
        metadata=values.column_schema(types, ABOUT_A_ROW | {item.name: item.description for item in spec.fields}),
    )

    @dg.asset(**shared, **fields.keyed(spec))
    def features(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[Any]:
        tables, history = store.tables(spec.name), store.history(spec.name)

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            held = _digests(spec, tables, chunk)
            nulled = history.nulled(spec.grain.with_lookback(chunk, spec.lookback))
            return ranges.Plan(
                inputs={key: _inputs(spec, held, nulled, key) for key in chunk},
                make=lambda stale: {STAGE: _made(spec, maker, tables, held, nulled, stale)},
            )

        done = ranges.advance(context, tables, [STAGE], ranges.keys_of(context), code, plan)
        return ranges.report(context, done, STAGE, shared["key"])

    return [features]


def _digests(spec: ProductSpec, tables: TableStore, keys: tuple[str, ...]) -> dict[Source, dict[str, str]]:
    """Return for each source what the keys that are looked back on hold; complete or an error."""
    return {
        source: {
            key: record.content_digest
            for key, record in require(tables, _stage(source), _reach(spec, source, keys)).items()
        }
        for source in spec.feature_sources
    }


def _inputs(spec: ProductSpec, held: dict[Source, dict[str, str]], nulled: dict[str, str], key: str) -> dict[str, str]:
    """Return one digest a source: of all that the key looks back on."""
    return {
        _stage(source): sha256(
            canonical(
                [
                    [seen, NULLED if nulled.get(seen) == source.name else digest_of[seen]]
                    for seen in _reach(spec, source, (key,))
                ]
            )
        )
        for source, digest_of in held.items()
    }


def _made(
    spec: ProductSpec,
    maker: Building,
    tables: TableStore,
    held: dict[Source, dict[str, str]],
    nulled: dict[str, str],
    keys: tuple[str, ...],
) -> Made:
    parts = []
    for run in contiguous(spec.grain, keys):
        rows = {
            source.name: tables.read_exact(_stage(source), {key: digest_of[key] for key in _reach(spec, source, run)})
            for source, digest_of in held.items()
        }
        parts.append(maker.make(run, rows, nulled))
    return Made(
        frames={key: frame for part in parts for key, frame in part.frames.items()},
        notes={key: notes for part in parts for key, notes in part.notes.items()},
    )


def _stage(source: Source) -> str:
    return naming.stage("validated", source.name)


def _reach(spec: ProductSpec, source: Source, keys: tuple[str, ...]) -> tuple[str, ...]:
    return (naming.UNPARTITIONED,) if source.is_slow else spec.grain.with_lookback(keys, spec.lookback)
