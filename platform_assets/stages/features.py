"""Build the model's inputs for every entity of a key, from what was known when it is asked about.

Reads the validated rows of the key and of `lookback` keys before it, and the slow tables. The window is complete
or the step fails, naming the keys that are not there; only at the start of history is it shorter. A source's rows of
a key that was nulled after a fault are left out.

A row with a value that its field does not declare (a null of a field that is not nullable, a number out of range or not
finite) is put aside, counted by reason: of such a row a service refuses the request. The rest is written, and a key of
which too many were put aside is faulty (`undeclared_values`): the step does not fail, for the key must be judged.
"""

from __future__ import annotations

import dagster as dg

from platform_assets import naming, partitions
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
"""Stands for the digest of rows that are left out."""

Held = dict[Source, dict[str, str]]
"""What the keys that are looked back on hold: content digests by source and key."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's features."""
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
        held = self._digests(chunk)
        nulled = self.product.history.nulled(self.spec.grain.with_lookback(chunk, self.spec.lookback))
        return Plan(
            inputs={key: self._inputs(held, nulled, key) for key in chunk},
            make=lambda stale: {STAGE: self._made(held, nulled, stale)},
        )

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        return super().summary(table, record) if record is None else data.features(record)

    def _digests(self, keys: Keys) -> Held:
        """Return for each source what the keys that are looked back on hold; complete or an error."""
        return {
            source: {
                key: record.content_digest
                for key, record in require(self.tables, _stage(source), self._reach(source, keys)).items()
            }
            for source in self.spec.feature_sources
        }

    def _inputs(self, held: Held, nulled: dict[str, str], key: str) -> dict[str, str]:
        """Return one digest a source: of all that the key looks back on."""
        return {
            _stage(source): sha256(
                canonical(
                    [
                        [seen, NULLED if nulled.get(seen) == source.name else digest_of[seen]]
                        for seen in self._reach(source, (key,))
                    ]
                )
            )
            for source, digest_of in held.items()
        }

    def _made(self, held: Held, nulled: dict[str, str], keys: Keys) -> StageOutput:
        parts = []
        for run in contiguous(self.spec.grain, keys):
            rows = {
                source.name: self.tables.read_exact(
                    _stage(source), {key: digest_of[key] for key in self._reach(source, run)}
                )
                for source, digest_of in held.items()
            }
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
