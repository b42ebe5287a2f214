"""Join what was answered with what came true, as labels arrive: quality by key, by model, and over the last keys.

A key is measured when its answers are there and measured again when its labels come, late ones too. Its quality is
that of the bundle that gave most answers. The window is the last labelled keys up to this one, with intervals clustered
by key; keys that are held, dropped, or were answered from a source that turned out to be broken, are left out.
Excess is log loss beyond what the model expects of itself: above zero it is worse than it says.

Also here: the features that were served beside our own for the same entity and moment. The share of equal rows is a
check that warns and blocks nothing.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import answers, ingest, skew
from platform_assets.specs.base import ProductSpec
from platform_assets.stages import fields, performance_metadata, predictions, ranges
from platform_assets.stages.performance_inputs import OWN, Known, keys_before
from platform_assets.storage.tables import PartitionRecord, TableStore
from resources.store import StoreResource

STAGE = "performance"
CHECK = "served_features_equal"
LEAST_EQUAL, LEAST_TOLERABLE = 0.999, 0.99
"""Shares of equal rows below which the check warns, and below which it is an error."""

ABOUT_A_ROW = {
    "prediction_id": "of the answer",
    "entity": "what it was about",
    "digest": "the bundle that gave it",
}


@dataclass(kw_only=True)
class _Window:
    """What the newest key that was made rests on, kept for its pictures."""

    key: str | None = None
    by_key: dict[str, pl.DataFrame] = field(default_factory=dict)


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's performance."""
    code = fields.code_of(spec, __name__)
    columns = _columns(spec)
    shared = fields.asset_args(
        spec,
        STAGE,
        system=naming.MONITORING,
        kinds=("polars", "numpy"),
        doc=__doc__,
        code=code,
        deps=[fields.dep(spec, stage) for stage in OWN],
        metadata=fields.column_schema(
            columns,
            ABOUT_A_ROW
            | spec.task.about()
            | {item.name: item.description for item in spec.fields if item.name in spec.slices},
        ),
    )

    @dg.asset(
        **shared,
        **fields.keyed(spec),
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=dg.AssetKey(shared["key"]),
                description=f"At least {LEAST_EQUAL:.1%} of the rows were served with the features that the platform "
                "has for the same entity and moment. Warns only.",
            )
        ],
    )
    def performance(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        tables, ledgers = store.tables(spec.name), store.ledgers(spec.name)
        keys, newest = ranges.keys_of(context), _Window()

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            known = Known.read(spec, tables, ledgers, chunk, keys)
            return ranges.Plan(
                inputs={key: inputs for key in chunk if (inputs := known.inputs(key)) is not None},
                make=lambda stale: {STAGE: _made(spec, tables, known, stale, newest)},
            )

        done = ranges.advance(context, tables, [STAGE], keys, code, plan)
        pictures = performance_metadata.pictures(spec, _trail(spec, tables, newest.key), newest.by_key)
        shown = {
            key: replace(
                record, notes=performance_metadata.told(spec, record) | (pictures if key == newest.key else {})
            )
            for key, record in done.records[STAGE].items()
        }
        check = _check(done.records[STAGE])
        return ranges.report(
            context, replace(done, records={STAGE: shown}), STAGE, shared["key"], check_results=[check]
        )

    return [performance]


def of_model(spec: ProductSpec, tables: TableStore, key: str, digest: str) -> dict[str, Any] | None:
    """Return how one bundle does against its own expectation over the window that ends at a key.

    For whoever decides about a bundle that is not the one that gave most of the key's answers. See
    `compute.performance.against_itself`; None when none of its answers in the window has a label.
    """
    from platform_assets.compute.performance import against_itself

    return against_itself(window_rows(spec, tables, key), digest, spec.task, confidence=spec.gates.confidence)


def window_rows(spec: ProductSpec, tables: TableStore, key: str) -> dict[str, pl.DataFrame]:
    """Return the joined rows of the window that ends at a key, by key; for calibration and slices in a report."""
    record = tables.records(STAGE, [key]).get(key)
    keys = [] if record is None or record.notes["window"] is None else record.notes["window"]["key_names"]
    return dict(sorted(_stored(spec, tables, tables.records(STAGE, keys)).items()))


def _stored(spec: ProductSpec, tables: TableStore, records: Mapping[str, PartitionRecord]) -> dict[str, pl.DataFrame]:
    """Return joined rows by key, without answers of another kind, which the product's task was once."""
    found = predictions.read(tables, STAGE, records, _columns(spec))
    return {key: rows.drop_nulls(list(spec.task.said_types())) for key, rows in found.items()}


def _columns(spec: ProductSpec) -> dict[str, pl.DataType]:
    types = ingest.schema(spec.fields, spec.task)
    return {**answers.columns(spec.task), **{name: types[name] for name in spec.slices}}


def _made(spec: ProductSpec, tables: TableStore, known: Known, stale: tuple[str, ...], newest: _Window) -> ranges.Made:
    from platform_assets.compute import performance as computed

    joined, compared = {}, {}
    for key in stale:
        given = _rows(tables, known, "predictions", key, ingest.schema(spec.fields, spec.task))
        outcomes = _rows(tables, known, "outcomes", key, {"entity": pl.String(), "label": spec.task.label_type()})
        ours = _rows(tables, known, "features", key, _of_features(spec))
        assert given is not None  # a key without is not in the plan
        joined[key] = answers.join(given, outcomes, ours, spec.slices, spec.task)
        compared[key] = _compared(spec, known, key, given, ours)
    window_keys = {key: _window_keys(spec, known, key, joined) for key in stale}
    stored = {each for keys in window_keys.values() for each in keys} - set(joined)
    records = {key: known.records[STAGE][key] for key in sorted(stored)}
    rows = _stored(spec, tables, records) | joined
    notes = {}
    for key in stale:
        by_key = {each: rows[each] for each in window_keys[key]}
        numbers = computed.measure(joined[key], spec.task)
        found = computed.window(by_key, numbers["digest"], spec.task, confidence=spec.gates.confidence)
        window = None if found is None else {**found, "key_names": list(by_key)}
        notes[key] = {**numbers, "window": window, "skew": compared[key]}
        newest.key, newest.by_key = key, by_key
    return ranges.Made(frames=joined, notes=notes)


def _rows(
    tables: TableStore, known: Known, stage: str, key: str, columns: Mapping[str, pl.DataType]
) -> pl.DataFrame | None:
    record = known.records[stage].get(key)
    return None if record is None else predictions.read(tables, stage, {key: record}, columns)[key]


def _of_features(spec: ProductSpec) -> dict[str, pl.DataType]:
    about = {name: ingest.ABOUT[name] for name in skew.WHO}
    return about | {item.name: ingest.FIELD_TYPES[item.dtype] for item in spec.fields}


def _compared(
    spec: ProductSpec, known: Known, key: str, served: pl.DataFrame, ours: pl.DataFrame | None
) -> dict[str, Any]:
    why = known.not_compared(key)
    if why is not None or ours is None:
        return {"rows": 0, "rows_equal": 0, "rows_unknown": 0, "share": None, "fields": [], "not_compared": why}
    return {**skew.compare(served, ours, spec.fields), "not_compared": None}


def _window_keys(spec: ProductSpec, known: Known, key: str, joined: Mapping[str, pl.DataFrame]) -> list[str]:
    """Return the last labelled keys up to this one that are not held, oldest first."""

    def has_labels(each: str) -> bool:
        if each in known.out:
            return False
        if each in joined:
            return answers.main_rows(joined[each]).height > 0
        record = known.records[STAGE].get(each)
        return record is not None and record.notes["quality"] is not None

    candidates = [each for each in (*keys_before(spec, key), key) if has_labels(each)]
    return candidates[-spec.retraining.performance_window :]


def _trail(spec: ProductSpec, tables: TableStore, key: str | None) -> dict[str, Mapping[str, Any]]:
    """Return the notes of a key and of those before it that its window may reach, oldest first."""
    keys = () if key is None else (*keys_before(spec, key), key)
    return {each: record.notes for each, record in tables.records(STAGE, keys).items()} if keys else {}


def _check(records: Mapping[str, PartitionRecord]) -> dg.AssetCheckResult:
    """Return one result for the run: over all keys that could be compared."""
    found = {key: record.notes["skew"] for key, record in records.items()}
    told = skew.total(found)
    share = told["share"]
    passed = share is None or share >= LEAST_EQUAL
    left_out = {key: each["not_compared"] for key, each in found.items() if each["not_compared"]}
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR
        if share is not None and share < LEAST_TOLERABLE
        else dg.AssetCheckSeverity.WARN,
        description=(
            "No row of this run could be compared; nothing was judged."
            if share is None
            else f"{told['rows_equal']:,} of {told['rows']:,} rows were served with our own features ({share:.2%})."
        ),
        metadata={
            **{name: told[name] for name in ("keys", "rows", "rows_equal", "rows_unknown")},
            **({} if share is None else {"share": share}),
            "differing": fields.table(told["fields"]),
            "not_compared": fields.table([{"key": key, "why": why} for key, why in left_out.items()]),
        },
    )
