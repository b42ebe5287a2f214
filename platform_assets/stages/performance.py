"""Join what was answered with what came true, as labels arrive: quality by key, by model, and over the last keys.

A key is measured when its answers are there and measured again when its labels come, late ones too. Its quality is
that of the bundle that gave most answers. The window is the last labelled keys up to this one, with intervals clustered
by key; keys that are held, dropped, or were answered from a source that turned out to be broken, are left out.
The model is tested against what its answers promise (`compute.promises`). Excess is log loss beyond what it expects of
itself: above zero it is worse than it says.

Of one entity and moment of ours one answer counts: the first that was given before the key was closed and whose
features equal ours. So neither repeating a question nor asking late or about other moments shifts a number.

Also here: the features that were served compared with ours for the same entity and moment, by distinct entity. A key
whose share of equal ones is below `Monitors.min_equal_share` is skewed: the check fails as an error and blocks nothing,
and the key's rows are the answers of its bundles to our own features.
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
from platform_assets.stages import counted, fields, performance_metadata, predictions, ranges
from platform_assets.stages.own_answers import OwnAnswers
from platform_assets.stages.performance_inputs import OWN, Known, keys_before
from platform_assets.storage.tables import PartitionRecord, TableStore
from resources.store import StoreResource

STAGE = "performance"
CHECK = "served_features_equal"
LEAST_EQUAL = 0.999
"""The share of equal entities below which the check warns; below `Monitors.min_equal_share` of a key it is an error."""

ABOUT_A_ROW = {
    "prediction_id": "of the answer; null for an answer to our own features, which nobody was given",
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
                description=f"At least {LEAST_EQUAL:.1%} of the entities were served with the features that the "
                f"platform has for the same moment. An error below {spec.monitors.min_equal_share:.1%} of a key.",
            )
        ],
    )
    def performance(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        tables, ledgers = store.tables(spec.name), store.ledgers(spec.name)
        keys, newest = ranges.keys_of(context), _Window()
        own = OwnAnswers(spec, store.artifacts)

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            known = Known.read(spec, tables, ledgers, chunk, keys)
            return ranges.Plan(
                inputs={key: inputs for key in chunk if (inputs := known.inputs(key)) is not None},
                make=lambda stale: {STAGE: _made(spec, tables, known, stale, newest, own)},
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


def skew_of(spec: ProductSpec, record: PartitionRecord | None) -> dict[str, Any]:
    """Return what a decision keeps of a key's comparison (`skew.decided`); `record` is the key's, if there is one."""
    return skew.decided(None if record is None else record.notes.get("skew"), spec.monitors.min_equal_share)


def of_model(spec: ProductSpec, tables: TableStore, key: str, digest: str) -> dict[str, Any] | None:
    """Return how one bundle does against what its answers promise over the window that ends at a key.

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


def _made(
    spec: ProductSpec, tables: TableStore, known: Known, stale: tuple[str, ...], newest: _Window, own: OwnAnswers
) -> ranges.Made:
    from platform_assets.compute import performance as computed

    joined, compared = {}, {}
    for key in stale:
        kept, ours, compared[key] = _counted(spec, tables, known, key, own)
        joined[key] = answers.join(kept, _outcomes(spec, tables, known, key), ours, spec.slices, spec.task)
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


def _outcomes(spec: ProductSpec, tables: TableStore, known: Known, key: str) -> pl.DataFrame | None:
    record = known.records["outcomes"].get(key)
    columns = {"entity": pl.String(), "label": spec.task.label_type()}
    return None if record is None else predictions.read(tables, "outcomes", {key: record}, columns)[key]


def _counted(
    spec: ProductSpec, tables: TableStore, known: Known, key: str, own: OwnAnswers
) -> tuple[pl.DataFrame, pl.DataFrame | None, dict[str, Any]]:
    """Return the answers by which a key is measured, our features, and how those that were served compare with them."""
    answered, built = known.records["predictions"][key], known.records["features"].get(key)
    given, ours = counted.read(spec, tables, answered, built)
    rows, told = counted.choose(spec, given, ours, known.not_compared(key))
    if ours is None or not told["is_skewed"]:
        return rows, ours, told
    at_our_moments = answers.counted(given, ours, spec.fields, is_compared=False)
    asked = answers.digests(at_our_moments) or answers.digests(given)
    scored, left_out = own.to(ours, asked)
    told |= {"own_answers": [each for each in asked if each not in left_out], "not_scored": list(left_out.values())}
    return (scored if scored.height else rows), ours, told


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
    skewed = [key for key, each in found.items() if each["is_skewed"]]
    left_out = {key: each["not_compared"] for key, each in found.items() if each["not_compared"]}
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=share is None or (share >= LEAST_EQUAL and not skewed),
        severity=dg.AssetCheckSeverity.ERROR if skewed else dg.AssetCheckSeverity.WARN,
        description=(
            "No entity of this run could be compared; nothing was judged."
            if share is None
            else f"{told['rows_equal']:,} of {told['rows']:,} entities were served with our own features ({share:.2%})."
            + (f" Measured by answers to our own features: {', '.join(skewed)}." if skewed else "")
        ),
        metadata={
            **{name: told[name] for name in ("keys", "rows", "rows_equal", "rows_unknown")},
            **({} if share is None else {"share": share}),
            "differing": fields.table(told["fields"]),
            "not_compared": fields.table([{"key": key, "why": why} for key, why in left_out.items()]),
        },
    )
