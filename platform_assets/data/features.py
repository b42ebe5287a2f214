"""Build the model's inputs for every entity of a key, from what was known at the moment of its request.

Reads the validated rows of the key and of `lookback` keys before it, and the slow tables. A key that is built again
keeps the snapshots of slow tables that it was built with, unless a person asks for a rebuild. The window is complete or
the step fails and names the missing keys; it is shorter only at the start of history. For a key nulled after a fault,
the faulty source's rows are left out. A delivery that cannot be read counts as one without rows (`gaps`), or its key
and those that look back on it get no rows until it is delivered again or settled (`awaits`): see `Source.unreadable`.

A row with a value that its field does not declare (null in a field that is not nullable, a number out of range or not
finite) is put aside and counted by reason: a service refuses such a request. The other rows are written. If too many
rows are put aside, the key is faulty (`undeclared_values`); the step does not fail, because the key must be judged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from platform_assets.base import naming
from platform_assets.base.problems import RecordExists
from platform_assets.data.features_maker import ABOUT_A_ROW, Building, Unread
from platform_assets.data.stage_inputs import read_together, require, versions
from platform_assets.engine import metadata, partitions
from platform_assets.engine.digests import reads
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import KeyedRun, Keys, Plan
from platform_assets.engine.stage import Stage, dep
from platform_assets.product.spec import Product, Source
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.history.snapshots import Snapshots
from platform_assets.store.partition_records import Versions
from platform_assets.store.records import notes
from platform_assets.store.records.versions import REBUILD_SNAPSHOTS, RebuildSnapshots
from platform_assets.store.tables import PartitionRecord

STAGE = "features"
NULLED = "nulled"
"""Replaces the digest of rows that are left out."""
AWAITED = "awaited"
"""Replaces the digest of a delivery that cannot be read and is waited for."""

Records = dict[Source, dict[str, PartitionRecord]]
Digests = dict[Source, dict[str, str]]
"""Content digests of the keys in the lookback, by source and key; without slow sources."""
Names = dict[str, dict[str, str]]
"""Names of slow tables' snapshots (`store.history.snapshots`), by key and stage."""
Unreadable = dict[str, set[str]]
"""Keys whose delivery cannot be read, by source."""


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's features stage."""
    back = partitions.mapping(partitions.keys_of(spec), lookback=spec.lookback)
    types = dict(zip(ABOUT_A_ROW, ("text", "moment", "moment"), strict=True)) | {f.name: f.dtype for f in spec.fields}
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.DATA,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=Building.for_product(spec),
        run=_FeaturesRun,
        outside=outside,
        deps=[
            dep(spec, "validated", source.name, mapping=None if source.is_slow else back)
            for source in spec.feature_sources
        ],
        metadata=metadata.column_schema(types, ABOUT_A_ROW | {item.name: item.description for item in spec.fields}),
    )


class _FeaturesRun(KeyedRun[Building]):
    def plan(self, chunk: Keys) -> Plan:
        reach, names = self._reach(chunk), self._snapshots.names(chunk)
        sources = [source for source in self.spec.feature_sources if not source.is_slow]
        records = {source: require(self.tables, _stage(source), reach) for source in sources}
        digests = {
            source: {key: record.content_digest for key, record in of_source.items()}
            for source, of_source in records.items()
        }
        holds = self.product.history.holds(reach)
        nulled = {key: hold.nulled_source for key, hold in holds.items() if hold.nulled_source is not None}
        gaps = self._unreadable(records)
        awaited = {
            source.name: {key for key in gaps[source.name] if key not in holds or holds[key].is_held}
            for source in self.spec.feature_sources
            if source.name in gaps and source.unreadable == "wait"
        }

        def make(stale: Keys) -> dict[str, StageOutput]:
            reaches = {key: self._reach((key,)) for key in stale}
            unread = {
                key: Unread(awaits=_within(awaited, reach), gaps=_within(gaps, reach)) for key, reach in reaches.items()
            }
            rows = {
                run: {
                    source.name: self._snapshots.rows(_stage(source), names[run[0]][_stage(source)], run)
                    if source.is_slow
                    else read_together(self.tables, {key: records[source][key] for key in self._reach(run)})
                    for source in self.spec.feature_sources
                }
                for run in self.maker.runs({key: [*names[key].values()] for key in unread})
            }
            with reads.guarded(self.spec.module, self.maker):
                return {STAGE: self.maker.make_all(rows, nulled, unread)}

        return Plan(
            inputs={key: self._inputs(digests, nulled, awaited, key) | names[key] for key in chunk},
            versions=self._versions(records, names, chunk),
            make=make,
        )

    def _versions(self, records: Records, names: Names, keys: Keys) -> dict[str, Versions]:
        """Return the versions of everything in each key's lookback, and of its snapshots.

        Where a snapshot is no longer on record, those that the key was made with count.
        """
        own, result = self.tables.records(STAGE, keys), dict[str, Versions]()
        for key in keys:
            snapshots = {stage: self._snapshots.record(stage, name) for stage, name in names[key].items()}
            result[key] = versions(
                [
                    *(of_source[past_key] for of_source in records.values() for past_key in self._reach((key,))),
                    *(record for record in snapshots.values() if record is not None),
                ]
            )
            if key in own and None in snapshots.values():
                result[key] = {**own[key].versions, **result[key]}
        return result

    @cached_property
    def _snapshots(self) -> Snapshots:
        """The snapshots, once it is on record which of them the newest rebuild takes."""
        snapshots = self.product.snapshots
        newest = self.product.history.newest_rebuild() if snapshots.stages else None
        keys = [key for key in self.tables.records(STAGE) if self.spec.grain.contains(key)] if newest else []
        if newest is None or not keys or snapshots.rebuild() is not None:
            return snapshots
        digests = {
            stage: record.content_digest
            for stage in snapshots.stages
            for record in require(self.tables, stage, (naming.UNPARTITIONED,)).values()
        }
        try:
            at_utc = self.product.now.isoformat()
        except LookupError:  # the clock of a recording is not set
            at_utc = None
        taken = RebuildSnapshots(snapshots=digests, last=max(keys, key=self.spec.grain.index), at_utc=at_utc)
        with contextlib.suppress(RecordExists):  # another run began at the same time
            self.product.ledgers.of(REBUILD_SNAPSHOTS).create(str(newest[0]), taken)
        return snapshots

    def _unreadable(self, validated: Records) -> Unreadable:
        """Return the keys of the lookback whose delivery cannot be read, by source; those have no rows."""
        unread: Unreadable = {}
        for source, of_source in validated.items():
            empty = [key for key, record in of_source.items() if not notes.Validated.of(record).rows_in]
            records = self.tables.records(naming.stage("raw", source.name), empty) if empty else {}
            if names := {key for key, record in records.items() if notes.Raw.of(record).unreadable}:
                unread[source.name] = names
        return unread

    def _inputs(self, digests: Digests, nulled: dict[str, str], awaited: Unreadable, key: str) -> dict[str, str]:
        """Return one digest per source with keys, over everything in the key's lookback."""
        return {
            _stage(source): sha256(
                canonical(
                    [
                        [
                            past_key,
                            NULLED
                            if nulled.get(past_key) == source.name
                            else AWAITED
                            if past_key in awaited.get(source.name, ())
                            else digest_of[past_key],
                        ]
                        for past_key in self._reach((key,))
                    ]
                )
            )
            for source, digest_of in digests.items()
        }

    def _reach(self, keys: Keys) -> Keys:
        return self.spec.grain.with_lookback(keys, self.spec.lookback)


def _within(unreadable: Unreadable, reach: Keys) -> dict[str, list[str]]:
    """Return which deliveries in a lookback cannot be read."""
    found = {source: [at for at in reach if at in those] for source, those in unreadable.items()}
    return {source: those for source, those in found.items() if those}


def _stage(source: Source) -> str:
    return naming.stage("validated", source.name)
