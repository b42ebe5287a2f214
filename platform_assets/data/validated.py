"""Split landed rows by the source's schema and rules: valid rows typed, the others in quarantine with a reason.

Valid and quarantined rows together are always all landed rows. Downstream assets use the valid ones; the share of the
others is a check that warns and blocks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from platform_assets.base import naming
from platform_assets.data.stage_inputs import read_each, require
from platform_assets.data.validated_maker import Validation
from platform_assets.engine import metadata
from platform_assets.engine.digests import reads
from platform_assets.engine.key_checks import KeyCheck
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Report
from platform_assets.engine.stage import Stage, Table, dep
from platform_assets.product.spec import Product
from platform_assets.store.records.notes import Validated

STAGE = "validated"
QUARANTINE = "quarantine"
CHECK = "quarantined_share"
QUARANTINED = {"source_offset": "Int64", "reason": "text", "schema_version": "Int64", "row": "JSON text"}
ABOUT_QUARANTINED = {
    "source_offset": "the row's place in the landed file, from 0",
    "reason": "which column or rule, and the value",
    "schema_version": "version of the source's schema that rejected it",
    "row": "as it landed; of a record of CSV that is not a row, its lines and text",
}


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield one stage per source."""
    limit = spec.monitors.max_quarantined_share
    for source in spec.sources:
        yield Stage(
            spec=spec,
            name=STAGE,
            source=source,
            system=naming.DATA,
            kinds=("pandera", "deltalake", "polars"),
            doc=__doc__,
            maker=Validation.for_source(spec, source),
            run=_ValidatedRun,
            outside=outside,
            deps=[dep(spec, "raw", source.name)],
            also=[Table(QUARANTINE, metadata.column_schema(QUARANTINED, ABOUT_QUARANTINED))],
            checks={CHECK: f"At most {limit:.1%} of a key's rows are quarantined. Warns only."},
        )


class _ValidatedRun(KeyedRun[Validation]):
    def plan(self, chunk: Keys) -> Plan:
        source, tables = self.source, self.tables
        raw = naming.stage("raw", source.name)
        landed = tables.records(raw, chunk) if source.is_label else require(tables, raw, chunk)

        def make(stale: Keys) -> dict[str, StageOutput]:
            rows = read_each(tables, raw, {key: landed[key] for key in stale})
            with reads.guarded(self.spec.module, self.maker):
                source.columns()  # raises a readable error if the schema lacks a column
                sound, quarantined = self.maker.make(rows)
            return {self.stage.full_name(QUARANTINE): quarantined, self.name: sound}

        return Plan(
            inputs={key: {raw: record.content_digest} for key, record in landed.items()},
            versions={key: record.versions for key, record in landed.items()},
            make=make,
        )

    def describe(self, done: Advance) -> Report:
        """Return whether each key's share of quarantined rows is within the spec's limit."""
        limit, bad = self.spec.monitors.max_quarantined_share, self.stage.full_name(QUARANTINE)
        shares = {
            key: notes.rows_quarantined / max(1, notes.rows_in)  # a delivery without rows has none in quarantine
            for key, record in done.records[self.name].items()
            for notes in [Validated.of(record)]
        }
        checks = {
            key: KeyCheck(
                passed=share <= limit,
                is_warning=True,
                description=f"{self.source.name} of {key} has {share:.1%} of its rows in {bad}; expected at most "
                f"{limit:.1%}.",
                metadata={"quarantined_share": metadata.rounded(share)},
            )
            for key, share in shares.items()
        }
        return Report(checks={CHECK: checks})
