"""Split landed rows by the source's schema and rules: good rows typed, the others in quarantine with a reason.

Good and quarantined rows together are what landed, always. Downstream goes on with the good ones; the share of the
others is a check that warns and blocks nothing.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import polars as pl

from platform_assets import naming
from platform_assets.compute import validate
from platform_assets.keys import DailyGrain, HourlyGrain
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.stages import fields, ranges
from platform_assets.storage.tables import PartitionRecord, TableStore
from resources.store import StoreResource

STAGE = "validated"
QUARANTINE = "quarantine"
CHECK = "quarantined_share"
QUARANTINED = {"source_offset": "Int64", "reason": "text", "schema_version": "Int64", "row": "JSON text"}
ABOUT_QUARANTINED = {
    "source_offset": "the row's place in the landed file, from 0",
    "reason": "which column or rule, and the value",
    "schema_version": "of the source's schema that refused it",
    "row": "as it landed",
}


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return one pair of assets a source."""
    code = fields.code_of(spec, __name__)
    return [_validated(spec, source, code) for source in spec.sources]


def _validated(spec: ProductSpec, source: Source, code: str) -> dg.AssetsDefinition:
    raw, good, bad = (naming.stage(name, source.name) for name in ("raw", STAGE, QUARANTINE))
    limit = spec.monitors.max_quarantined_share
    shared = {
        stage: fields.asset_args(
            spec,
            stage,
            source=source.name,
            system=naming.DATA,
            kinds=("pandera", "deltalake", "polars"),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, "raw", source.name)],
            metadata=metadata,
        )
        for stage, metadata in ((STAGE, {}), (QUARANTINE, fields.column_schema(QUARANTINED, ABOUT_QUARANTINED)))
    }
    good_key, bad_key = shared[STAGE]["key"], shared[QUARANTINE]["key"]

    @dg.multi_asset(
        name="__".join(good_key),
        specs=[dg.AssetSpec(**args) for args in shared.values()],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=dg.AssetKey(good_key),
                description=f"At most {limit:.1%} of a key's rows are quarantined. Warns only.",
            )
        ],
        **fields.keyed(spec, source),
    )
    def validated(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult[Any]]:
        tables = store.tables(spec.name)
        keys = ranges.keys_of(context, source)

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            landed = tables.records(raw, chunk) if source.is_label else ranges.require(tables, raw, chunk)
            return ranges.Plan(
                inputs={key: {raw: record.content_digest} for key, record in landed.items()},
                make=lambda stale: _made(spec, source, tables, {key: landed[key] for key in stale}),
            )

        done = ranges.advance(context, tables, [bad, good], keys, code, plan)
        yield ranges.report(
            context, done, good, good_key, shows_columns=True, check_results=[_check(spec, done, good, bad)]
        )
        yield ranges.report(context, done, bad, bad_key)

    return validated


def _made(
    spec: ProductSpec, source: Source, tables: TableStore, landed: dict[str, PartitionRecord]
) -> dict[str, ranges.Made]:
    raw, good, bad = (naming.stage(name, source.name) for name in ("raw", STAGE, QUARANTINE))
    rows: dict[str, pl.DataFrame] = {}
    for keys in ranges.columns_alike(landed):
        read = tables.read_exact(raw, {key: landed[key].content_digest for key in keys})
        rows |= ranges.by_key(read, keys, raw)
    splits = validate.split_keys(
        {key: rows[key] for key in landed},
        source.columns(),
        schema_version=source.schema_version,
        unique=source.unique,
        key_of=_key_of(spec, source),
    )
    notes = {key: _counts(split) for key, split in splits.items()}
    return {
        bad: ranges.Made(frames={key: split.quarantined for key, split in splits.items()}, notes=notes),
        good: ranges.Made(frames={key: split.good for key, split in splits.items()}, notes=notes),
    }


def _key_of(spec: ProductSpec, source: Source) -> Callable[[pl.DataFrame], pl.Series] | None:
    if source.partition_by is None or not isinstance(spec.grain, DailyGrain | HourlyGrain):
        return None
    return validate.key_column(source.partition_by, spec.grain.key_of)


def _counts(split: validate.Split) -> dict[str, Any]:
    """Return what a key's record tells: rows in, quarantined, repeated ones, and the ten most frequent reasons."""
    bad = split.quarantined.height
    reasons = split.quarantined["reason"].value_counts(sort=True).head(10)
    return {
        "rows_in": split.good.height + bad,
        "rows_quarantined": bad,
        "rows_repeated": split.repeated,
        **({"quarantined_by_reason": dict(reasons.iter_rows())} if bad else {}),
    }


def _check(spec: ProductSpec, done: ranges.Advance, good: str, bad: str) -> dg.AssetCheckResult:
    """Return one result for the run: the keys above the spec's limit, the worst first."""
    limit = spec.monitors.max_quarantined_share
    shares = {
        key: record.notes["rows_quarantined"] / max(1, record.notes["rows_in"])
        for key, record in done.records[good].items()
    }
    above = sorted((key for key in shares if shares[key] > limit), key=lambda key: -shares[key])
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not above,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(above)} of {len(shares)} keys have over {limit:.1%} of their rows in {bad}."
            if shares
            else "No key of this run has landed; nothing was judged."
        ),
        metadata={
            "keys_judged": len(shares),
            "keys_above": len(above),
            "worst_share": max(shares.values(), default=0.0),
            "above": fields.table([{"key": key, "quarantined_share": shares[key]} for key in above[:20]]),
        },
    )
