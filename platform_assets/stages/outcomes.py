"""Turn validated label rows into outcomes: what became of each entity, and when it was known.

Labels arrive late and rewrite only their key. A key whose labels have not landed has no record and is no error. Labels
that come after they were given up are recorded as such, and later cutoffs see them.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from typing import Any

import dagster as dg

from platform_assets import digests, naming
from platform_assets.engine import fields, ranges
from platform_assets.facts import unlabelled
from platform_assets.makers.outcomes import Labelling
from platform_assets.makers.parts import Made
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from resources.store import StoreResource

STAGE = "outcomes"


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's outcomes."""
    maker = Labelling.of(spec)
    code = digests.of(maker)
    validated = naming.stage("validated", spec.label_source.name)
    about = {
        "entity": "what the prediction was about",
        "label": spec.task.about()["label"],
        "known_at": "the moment from which the outcome was known (UTC)",
    }
    types = {"entity": "text", "label": str(spec.task.label_type()), "known_at": "moment"}
    shared = fields.asset_args(
        spec,
        STAGE,
        system=naming.DATA,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        code=code,
        deps=[fields.dep(spec, "validated", spec.label_source.name)],
        metadata=values.column_schema(types, about),
    )

    @dg.asset(**shared, **fields.keyed(spec))
    def outcomes(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[Any]:
        tables = store.tables(spec.name)

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            records = tables.records(validated, chunk)
            return ranges.Plan(
                inputs={key: {validated: record.content_digest} for key, record in records.items()},
                make=lambda stale: {
                    STAGE: _made(spec, maker, store, validated, {key: records[key].content_digest for key in stale})
                },
            )

        done = ranges.advance(context, tables, [STAGE], ranges.keys_of(context), code, plan)
        return ranges.report(context, done, STAGE, shared["key"])

    return [outcomes]


def _made(spec: ProductSpec, maker: Labelling, store: StoreResource, validated: str, content: dict[str, str]) -> Made:
    tables = store.tables(spec.name)
    made = maker.make(tuple(content), tables.read_exact(validated, content))
    unlabelled.take_back(tables, store.history(spec.name), spec.grain, content, _now(spec, store))
    return made


def _now(spec: ProductSpec, store: StoreResource) -> str | None:
    """Return the product's moment; None for a recording whose clock nobody has set."""
    try:
        return store.now(spec.name, is_live=spec.is_live).isoformat()
    except LookupError:
        return None
