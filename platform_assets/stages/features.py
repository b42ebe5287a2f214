"""Build the model's inputs for every entity of a key, from what was known at the moment of its request.

Reads the validated rows of the key and of `lookback` keys before it, and the slow tables. The window is complete or
the step fails and names the missing keys; it is shorter only at the start of history. For a key nulled after a fault,
the faulty source's rows are left out.

A row with a value that its field does not declare (null in a field that is not nullable, a number out of range or not
finite) is put aside and counted by reason: a service refuses such a request. The other rows are written. If too many
rows are put aside, the key is faulty (`undeclared_values`); the step does not fail, because the key must be judged.
"""

from __future__ import annotations

import dagster as dg

from platform_assets import naming, partitions
from platform_assets.digests import reads
from platform_assets.engine.ranges import KeyedRun, Keys, Plan
from platform_assets.engine.stage import Stage, dep
from platform_assets.makers.features import ABOUT_A_ROW, Building
from platform_assets.makers.parts import StageOutput, contiguous
from platform_assets.makers.reading import require
from platform_assets.show import data, values
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.tables import PartitionRecord

STAGE = "features"
NULLED = "nulled"
"""Replaces the digest of rows that are left out."""

Digests = dict[Source, dict[str, str]]
"""Content digests of the keys in the lookback, by source and key."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's features asset."""
    back = partitions.mapping(partitions.keys_of(spec), lookback=spec.lookback)
    types = dict(zip(ABOUT_A_ROW, ("text", "moment", "moment"), strict=True)) | {f.name: f.dtype for f in spec.fields}
    return Stage(
        spec=spec,
        name=STAGE,
        system=naming.DATA,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=Building.of(spec),
        run=_Run,
        deps=[
            dep(spec, "validated", source.name, mapping=None if source.is_slow else back)
            for source in spec.feature_sources
        ],
        metadata=values.column_schema(types, ABOUT_A_ROW | {item.name: item.description for item in spec.fields}),
    ).assets()


class _Run(KeyedRun[Building]):
    def plan(self, chunk: Keys) -> Plan:
        digests = self._digests(chunk)
        nulled = self.product.history.nulled(self.spec.grain.with_lookback(chunk, self.spec.lookback))
        return Plan(
            inputs={key: self._inputs(digests, nulled, key) for key in chunk},
            make=lambda stale: {STAGE: self._compute(digests, nulled, stale)},
        )

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        return super().summary(table, record) if record is None else data.features(record)

    def _digests(self, keys: Keys) -> Digests:
        """Return the content digests of the lookback, per source; raise if one is missing."""
        return {
            source: {
                key: record.content_digest
                for key, record in require(self.tables, _stage(source), self._reach(source, keys)).items()
            }
            for source in self.spec.feature_sources
        }

    def _inputs(self, digests: Digests, nulled: dict[str, str], key: str) -> dict[str, str]:
        """Return one digest per source, over everything in the key's lookback."""
        return {
            _stage(source): sha256(
                canonical(
                    [
                        [past_key, NULLED if nulled.get(past_key) == source.name else digest_of[past_key]]
                        for past_key in self._reach(source, (key,))
                    ]
                )
            )
            for source, digest_of in digests.items()
        }

    def _compute(self, digests: Digests, nulled: dict[str, str], keys: Keys) -> StageOutput:
        parts = []
        for run in contiguous(self.spec.grain, keys):
            rows = {
                source.name: self.tables.read_exact(
                    _stage(source), {key: digest_of[key] for key in self._reach(source, run)}
                )
                for source, digest_of in digests.items()
            }
            with reads.guarded(self.spec.module):
                parts.append(self.maker.make(run, rows, nulled))
        return StageOutput(
            frames={key: frame for part in parts for key, frame in part.frames.items()},
            notes={key: notes for part in parts for key, notes in part.notes.items()},
        )

    def _reach(self, source: Source, keys: Keys) -> Keys:
        spec = self.spec
        return (naming.UNPARTITIONED,) if source.is_slow else spec.grain.with_lookback(keys, spec.lookback)


def _stage(source: Source) -> str:
    return naming.stage("validated", source.name)
