"""Tell which snapshot of a slow table the features of a key are built with.

A snapshot is one content of a slow table. The record of a key's features has the snapshot's name among its inputs. The
key keeps it, whatever is delivered later, until a person asks for a rebuild of all keys. Rows of snapshots are never
deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.base import naming
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.problems import MissingPartitions, TableProblem, plural

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.base.keys import Grain
    from platform_assets.store.history.reader import History
    from platform_assets.store.partition_records import PartitionRecord
    from platform_assets.store.records.versions import RebuildSnapshots
    from platform_assets.store.tables import TableStore

FEATURES = naming.stage("features")


def choose(own: PartitionRecord | None, rebuilt: PartitionRecord | None, newest: PartitionRecord) -> PartitionRecord:
    """Return the snapshot of a slow table for a key: that of the rebuild that covers the key, otherwise its own.

    The newest is for keys without either, and where both have other versions than the newest: the table is read in
    another way now, and rows of one version belong together.

    Args:
        own: the one that the key's features were built with; None for a key without features.
        rebuilt: that of the newest rebuild, if it covers the key.
        newest: the newest on record.
    """
    return next((one for one in (rebuilt, own) if one is not None and one.versions == newest.versions), newest)


def name(content_digest: str) -> str:
    """Return what the record of a key's features has among its inputs for a slow table with this content."""
    return sha256(canonical([[naming.UNPARTITIONED, content_digest]]))


def by_name(tables: TableStore, stage: str) -> dict[str, PartitionRecord]:
    """Return the snapshots of a slow table by name, the newest first."""
    return {name(record.content_digest): record for record in tables.versions(stage, naming.UNPARTITIONED)}


def of_key(tables: TableStore, stage: str, key: str) -> str | None:
    """Return the name of the snapshot that a key's features were built with; without features of the newest."""
    record = tables.records(FEATURES, [key]).get(key)
    newest = next(iter(by_name(tables, stage)), None)
    return newest if record is None else record.inputs.get(stage, newest)


def lost(product: str, stage: str, keys: Sequence[str], problem: str) -> tuple[str, str]:
    """Return what is wrong with a snapshot that keys were built with, and the cure.

    Args:
        problem: a verb and its end: `cannot be read`.
    """
    job = naming.job("rebuild", product)
    return (
        f"{stage}: the snapshot that the features of {plural(keys)} were built with {problem}.",
        f"Put its files back from a backup, or launch {job}, which builds all keys with the newest snapshot.",
    )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the keys with features stand to a slow table.

    Attributes:
        keys: built with it.
        older: of these, with an older snapshot than the newest.
        left: of these, that a rebuild, or another way of reading the table, makes again with another snapshot.
    """

    keys: int
    older: int
    left: int


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of a product's slow tables.

    Attributes:
        stages: the full names of the slow tables that features read.
    """

    tables: TableStore
    history: History
    grain: Grain
    stages: Sequence[str]

    def names(self, keys: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the name of each slow table's snapshot, by key and stage.

        A key whose snapshot is no longer on record keeps its name: it is up to date and cannot be made again (`rows`).

        Raises:
            MissingPartitions: a slow table has no rows.
        """
        records = self.tables.records(FEATURES, keys) if self.stages else {}
        rebuild = self.rebuild() if self.stages else None
        names: dict[str, dict[str, str]] = {key: {} for key in keys}
        for stage in self.stages:
            for key, chosen in self._chosen(stage, keys, records, rebuild).items():
                names[key][stage] = chosen
        return names

    def record(self, stage: str, snapshot: str) -> PartitionRecord | None:
        """Return the newest record of a snapshot by its name; None if it is not on record."""
        return by_name(self.tables, stage).get(snapshot)

    def rebuild(self) -> RebuildSnapshots | None:
        """Return what the newest rebuild took; None without one, and before its first run."""
        newest = self.history.newest_rebuild()
        return None if newest is None else self.history.rebuild_snapshots(newest[0])

    def rows(self, stage: str, snapshot: str | None, keys: Sequence[str]) -> pl.DataFrame:
        """Return the rows of a snapshot.

        Args:
            snapshot: its name; None where there is none.
            keys: that are built with it, for the message.

        Raises:
            TableProblem: it is not on record, or its files are lost.
        """
        snapshots = by_name(self.tables, stage)
        record = None if snapshot is None else snapshots.get(snapshot)
        if record is None:
            raise self._lost(stage, keys, "is not on record")
        try:
            return self.tables.read_exact(stage, {naming.UNPARTITIONED: record.content_digest})
        except TableProblem as problem:
            if snapshot == next(iter(snapshots)):
                raise
            raise self._lost(stage, keys, "cannot be read") from problem

    def _lost(self, stage: str, keys: Sequence[str], problem: str) -> TableProblem:
        product = self.tables.product
        return TableProblem(f"{product}/{' '.join(lost(product, stage, keys, problem))}")

    def standing(self) -> dict[str, Standing]:
        """Return how the keys with features stand, by stage; a slow table without rows is left out."""
        records, rebuild, result = self._built(), self.rebuild(), dict[str, Standing]()
        for stage in self.stages:
            built = {key: record for key, record in records.items() if stage in record.inputs}
            newest = next(iter(by_name(self.tables, stage)), None)
            if newest is not None:
                older = sum(record.inputs[stage] != newest for record in built.values())
                result[stage] = Standing(keys=len(built), older=older, left=self._left(stage, built, rebuild))
        return result

    def _built(self) -> dict[str, PartitionRecord]:
        """Return the records of all keys with features that the product still has."""
        return {key: record for key, record in self.tables.records(FEATURES).items() if self.grain.contains(key)}

    def _left(self, stage: str, built: Mapping[str, PartitionRecord], rebuild: RebuildSnapshots | None) -> int:
        """Count the keys that are to be made again with another snapshot."""
        chosen = self._chosen(stage, tuple(built), built, rebuild)
        return sum(record.inputs.get(stage) != chosen[key] for key, record in built.items())

    def _chosen(
        self,
        stage: str,
        keys: Sequence[str],
        records: Mapping[str, PartitionRecord],
        rebuild: RebuildSnapshots | None,
    ) -> dict[str, str]:
        """Return the name of a slow table's snapshot, by key; `records` are those of the keys that have features."""
        snapshots = by_name(self.tables, stage)
        if not snapshots:
            raise MissingPartitions(self.tables.product, stage, (naming.UNPARTITIONED,))
        newest = next(iter(snapshots.values()))
        digest = None if rebuild is None else rebuild.snapshots.get(stage)
        rebuilt = None if digest is None else snapshots.get(name(digest))
        # Keys that are closed while a rebuild is under way belong to it.
        is_open = (
            rebuilt is not None
            and rebuilt is not newest
            and len(records) < len(keys)
            and self._left(stage, self._built(), rebuild) > 0
        )
        names = {}
        for key in keys:
            own = records[key].inputs.get(stage) if key in records else None
            is_covered = self._covers(rebuild, key) or (is_open and key not in records)
            if own is not None and own not in snapshots and not (is_covered and rebuilt is not None):
                names[key] = own
                continue
            chosen = choose(None if own is None else snapshots.get(own), rebuilt if is_covered else None, newest)
            names[key] = name(chosen.content_digest)
        return names

    def _covers(self, rebuild: RebuildSnapshots | None, key: str) -> bool:
        if rebuild is None:
            return False
        return not self.grain.contains(rebuild.last) or self.grain.index(key) <= self.grain.index(rebuild.last)
