"""Join what was answered with what came true, as labels arrive: quality by key, by model, and over the last keys.

A key is measured when its answers are there and measured again when its labels come, late ones too. Its quality is
that of the bundle that gave most answers; accuracy, precision and recall are those at the product's operating
threshold. The window is the last labelled keys up to this one, held keys left out, with intervals clustered by key.
Excess is log loss beyond what the model expects of itself: above zero it is worse than it says.

Also here: the features that were served beside our own for the same entity and moment. The share of equal rows is a
check that warns and blocks nothing.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import holds as meanings
from platform_assets.compute import ingest, skew
from platform_assets.compute import performance as computed
from platform_assets.specs.base import ProductSpec
from platform_assets.stages import fields, holds, performance_metadata, predictions, ranges
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import PartitionRecord, TableStore
from resources.store import StoreResource

STAGE = "performance"
OWN_INPUTS = ("predictions", "outcomes", "features")
CHECK = "served_features_equal"
LEAST_EQUAL, LEAST_TOLERABLE = 0.999, 0.99
"""Shares of equal rows below which the check warns, and below which it is an error."""
REACH_WINDOWS = 3
"""The window's keys are looked for among so many windows of keys: older quality says nothing about now."""

ABOUT_A_ROW = {
    "prediction_id": "of the answer",
    "entity": "what it was about",
    "digest": "the bundle that gave it",
    "probability": "as answered",
    "label": "1 when it came true, 0 when not, null when it can be neither or is not known yet",
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
        deps=[fields.dep(spec, stage) for stage in OWN_INPUTS],
        metadata=fields.column_schema(
            columns, ABOUT_A_ROW | {item.name: item.description for item in spec.fields if item.name in spec.slices}
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
            known = _Known.read(spec, tables, ledgers, chunk, keys)
            return ranges.Plan(
                inputs={key: inputs for key in chunk if (inputs := known.inputs(key)) is not None},
                make=lambda stale: {STAGE: _made(spec, tables, known, stale, newest)},
            )

        done = ranges.advance(context, tables, [STAGE], keys, code, plan)
        pictures = performance_metadata.pictures(spec, _trail(spec, tables, newest.key), newest.by_key)
        shown = {
            key: replace(record, notes=performance_metadata.told(record) | (pictures if key == newest.key else {}))
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
    record = tables.records(STAGE, [key]).get(key)
    keys = [] if record is None or record.notes["window"] is None else record.notes["window"]["key_names"]
    if not keys:
        return None
    by_key = predictions.read(tables, STAGE, tables.records(STAGE, keys), _columns(spec))
    return computed.against_itself(dict(sorted(by_key.items())), digest, confidence=spec.gates.confidence)


def window_rows(spec: ProductSpec, tables: TableStore, key: str) -> dict[str, pl.DataFrame]:
    """Return the joined rows of the window that ends at a key, by key; for calibration and slices in a report."""
    record = tables.records(STAGE, [key]).get(key)
    keys = [] if record is None or record.notes["window"] is None else record.notes["window"]["key_names"]
    return dict(sorted(predictions.read(tables, STAGE, tables.records(STAGE, keys), _columns(spec)).items()))


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The records that some keys are measured from.

    Attributes:
        spec: the product.
        run: the keys of the run, all brought up to date by it.
        records: by stage, then by key: of the run's chunk and of what its windows reach back to.
        out: keys that are held or dropped, and count in no window.
        changed: keys whose sources are not what they were when predictions were served, with the reason.
    """

    spec: ProductSpec
    run: frozenset[str]
    records: Mapping[str, Mapping[str, PartitionRecord]]
    out: frozenset[str]
    changed: Mapping[str, str]

    @staticmethod
    def read(
        spec: ProductSpec, tables: TableStore, ledgers: Ledgers, chunk: tuple[str, ...], run: Iterable[str]
    ) -> "_Known":
        """Read the records for one chunk of a run's keys."""
        reach = spec.grain.with_lookback(chunk, max(_reach(spec), spec.lookback))
        found = holds.of_keys(tables, ledgers, reach)
        reasons = {key: _change(key, hold) for key, hold in found.items()}
        return _Known(
            spec=spec,
            run=frozenset(run),
            records={stage: tables.records(stage, reach) for stage in (*OWN_INPUTS, STAGE)},
            out=frozenset(key for key, hold in found.items() if hold.is_out),
            changed={key: reason for key, reason in reasons.items() if reason is not None},
        )

    def own(self, key: str) -> dict[str, str] | None:
        """Return the digests that a key itself is measured from; None before its predictions were taken in."""
        if key not in self.records["predictions"]:
            return None
        return {stage: self.records[stage][key].content_digest for stage in OWN_INPUTS if key in self.records[stage]}

    def inputs(self, key: str) -> dict[str, str] | None:
        """Return all that a key's numbers follow from: its own digests, its window's, and what was held."""
        own = self.own(key)
        if own is None:
            return None
        before = spec_before(self.spec, key)
        window = [[each, self._standing(each), each in self.out] for each in before]
        why = self.not_compared(key)
        return {**own, "window": sha256(canonical([window, key in self.out])), "compared": sha256(canonical(why))}

    def not_compared(self, key: str) -> str | None:
        """Return why a key's served features cannot be compared with ours; None when they can."""
        if key not in self.records["features"]:
            return f"the features of {key} have not been built."
        back = self.spec.grain.with_lookback((key,), self.spec.lookback)
        return next((self.changed[each] for each in back if each in self.changed), None)

    def _standing(self, key: str) -> dict[str, str] | None:
        """Return the digests of a window's key: as this run makes it, or as it was made."""
        if key in self.run:
            return self.own(key)
        record = self.records[STAGE].get(key)
        return None if record is None else {name: record.inputs[name] for name in OWN_INPUTS if name in record.inputs}


def spec_before(spec: ProductSpec, key: str) -> tuple[str, ...]:
    """Return the keys among which the window of a key is looked for, the key itself left out."""
    return spec.grain.with_lookback((key,), _reach(spec))[:-1]


def _reach(spec: ProductSpec) -> int:
    return REACH_WINDOWS * spec.retraining.performance_window - 1


def _columns(spec: ProductSpec) -> dict[str, pl.DataType]:
    types = ingest.schema(spec.fields)
    return {**computed.COLUMNS, **{name: types[name] for name in spec.slices}}


def _change(key: str, hold: meanings.Hold) -> str | None:
    if hold.nulled_source is not None:
        return f"{hold.nulled_source} of {key} is left out of our features since a fault, and was not when it served."
    if hold.kind in (meanings.REPAIR, meanings.REPAIRED):
        return f"{key} was delivered again after it had served, so our features are not those of the moment."
    return None


def _made(spec: ProductSpec, tables: TableStore, known: _Known, stale: tuple[str, ...], newest: _Window) -> ranges.Made:
    joined, compared = {}, {}
    for key in stale:
        answers = _rows(tables, known, "predictions", key, ingest.schema(spec.fields))
        outcomes = _rows(tables, known, "outcomes", key, {"entity": pl.String(), "label": pl.Int8()})
        ours = _rows(tables, known, "features", key, _of_features(spec))
        assert answers is not None  # a key without is not in the plan
        joined[key] = computed.join(answers, outcomes, ours, spec.slices)
        compared[key] = _compared(spec, known, key, answers, ours)
    window_keys = {key: _window_keys(spec, known, key, joined) for key in stale}
    stored = {each for keys in window_keys.values() for each in keys} - set(joined)
    records = {key: known.records[STAGE][key] for key in sorted(stored)}
    rows = predictions.read(tables, STAGE, records, _columns(spec)) | joined
    notes = {}
    for key in stale:
        by_key = {each: rows[each] for each in window_keys[key]}
        numbers = computed.measure(joined[key], spec.operating_threshold)
        found = computed.window(
            by_key, numbers["digest"], threshold=spec.operating_threshold, confidence=spec.gates.confidence
        )
        window = None if found is None else {**found, "key_names": list(by_key)}
        notes[key] = {**numbers, "window": window, "skew": compared[key]}
        newest.key, newest.by_key = key, by_key
    return ranges.Made(frames=joined, notes=notes)


def _rows(
    tables: TableStore, known: _Known, stage: str, key: str, columns: Mapping[str, pl.DataType]
) -> pl.DataFrame | None:
    record = known.records[stage].get(key)
    return None if record is None else predictions.read(tables, stage, {key: record}, columns)[key]


def _of_features(spec: ProductSpec) -> dict[str, pl.DataType]:
    about = {name: ingest.ABOUT[name] for name in skew.WHO}
    return about | {item.name: ingest.FIELD_TYPES[item.dtype] for item in spec.fields}


def _compared(
    spec: ProductSpec, known: _Known, key: str, answers: pl.DataFrame, ours: pl.DataFrame | None
) -> dict[str, Any]:
    why = known.not_compared(key)
    if why is not None or ours is None:
        return {"rows": 0, "rows_equal": 0, "rows_unknown": 0, "share": None, "fields": [], "not_compared": why}
    return {**skew.compare(answers, ours, spec.fields), "not_compared": None}


def _window_keys(spec: ProductSpec, known: _Known, key: str, joined: Mapping[str, pl.DataFrame]) -> list[str]:
    """Return the last labelled keys up to this one that are not held, oldest first."""

    def has_labels(each: str) -> bool:
        if each in known.out:
            return False
        if each in joined:
            return computed.main_rows(joined[each]).height > 0
        record = known.records[STAGE].get(each)
        return record is not None and record.notes["quality"] is not None

    candidates = [each for each in (*spec_before(spec, key), key) if has_labels(each)]
    return candidates[-spec.retraining.performance_window :]


def _trail(spec: ProductSpec, tables: TableStore, key: str | None) -> dict[str, Mapping[str, Any]]:
    """Return the notes of a key and of those before it that its window may reach, oldest first."""
    keys = () if key is None else (*spec_before(spec, key), key)
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
