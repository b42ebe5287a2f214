"""Split landed rows by the source's schema and rules: good rows typed, the others in quarantine with a reason.

Good and quarantined rows together are what landed, always. Downstream goes on with the good ones; the share of the
others is a check that warns and blocks nothing.
"""
# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from platform_assets import digests, naming
from platform_assets.engine import fields, ranges
from platform_assets.makers.parts import Made, by_key
from platform_assets.makers.reading import require
from platform_assets.makers.validated import Validation
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec, Source
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
    return [_validated(spec, source) for source in spec.sources]


def _validated(spec: ProductSpec, source: Source) -> dg.AssetsDefinition:
    maker = Validation.of(spec, source)
    code = digests.of(maker)
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
        for stage, metadata in ((STAGE, {}), (QUARANTINE, values.column_schema(QUARANTINED, ABOUT_QUARANTINED)))
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
        source.columns()  # or a sentence about what the schema lacks

        def plan(chunk: tuple[str, ...]) -> ranges.Plan:
            landed = tables.records(raw, chunk) if source.is_label else require(tables, raw, chunk)

            def make(stale: tuple[str, ...]) -> dict[str, Made]:
                sound, quarantined = maker.make(_rows(tables, raw, {key: landed[key] for key in stale}))
                return {bad: quarantined, good: sound}

            return ranges.Plan(
                inputs={key: {raw: record.content_digest} for key, record in landed.items()},
                make=make,
            )

        done = ranges.advance(context, tables, [bad, good], keys, code, plan)
        yield ranges.report(
            context, done, good, good_key, shows_columns=True, check_results=[_check(spec, done, good, bad)]
        )
        yield ranges.report(context, done, bad, bad_key)

    return validated


def _rows(tables: TableStore, raw: str, landed: dict[str, PartitionRecord]) -> dict[str, pl.DataFrame]:
    rows: dict[str, pl.DataFrame] = {}
    for keys in ranges.columns_alike(landed):
        read = tables.read_exact(raw, {key: landed[key].content_digest for key in keys})
        rows |= by_key(read, keys, raw)
    return {key: rows[key] for key in landed}


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
            "above": values.table([{"key": key, "quarantined_share": shares[key]} for key in above[:20]]),
        },
    )
