"""Advance a stage over the keys of one run: skip what is done, work in chunks, commit each, tell every key.

Belongs here: memoisation and the reports that all data stages share. Does not belong here: what a stage computes.

A key is done when the newest record of each of the stage's tables was made from the same input digests by the same
code, and its rows are there and whole. A chunk's keys are written in one commit a table; a run that ends in the middle
leaves whole chunks behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import naming, partitions
from platform_assets.engine.stage import M, Partitions, Run, Stage, Table
from platform_assets.makers.parts import StageOutput
from platform_assets.show import values
from platform_assets.storage.adoption import is_current
from platform_assets.storage.tables import PartitionRecord, TableStore

if TYPE_CHECKING:
    import polars as pl

Keys = tuple[str, ...]
CHUNK_KEYS = 31
"""How many keys are held in memory and committed together."""
COLUMNS = "dagster/column_schema"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stage wants to do with one chunk of keys.

    Attributes:
        inputs: digests by name, for each key that can be made; a key left out has not landed.
        make: makes the given keys, all of them in `inputs`; one `StageOutput` a table, in the order of writing.
        is_whole: tells of a record of the last table whether what it names besides rows can be read.
    """

    inputs: Mapping[str, Mapping[str, str]]
    make: Callable[[Keys], Mapping[str, StageOutput]]
    is_whole: Callable[[PartitionRecord], bool] = lambda _: True


@dataclass(frozen=True, kw_only=True)
class Advance:
    """What a run found and did, key by key.

    Attributes:
        keys: the run's keys, in order.
        records: by table, then by key; a key that has not landed has none.
        memoised: keys with nothing to do.
        wall_s: how long it took.
    """

    keys: Keys
    records: Mapping[str, Mapping[str, PartitionRecord]]
    memoised: frozenset[str]
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the stage's own table shows besides what all stages do.

    Attributes:
        notes: by key, in place of the notes of its record.
        run: about the run; every key of it shows this.
        checks: results of the stage's checks.
    """

    notes: Mapping[str, values.Metadata] = field(default_factory=dict)
    run: values.Metadata = field(default_factory=dict)
    checks: Sequence[dg.AssetCheckResult] = ()


class KeyedRun(Run[M]):
    """A run over a range of keys; a slow source has the one key of an unpartitioned table."""

    def __init__(self, stage: Stage[M], context: dg.AssetExecutionContext) -> None:
        """Read nothing yet."""
        super().__init__(stage, context)
        is_slow = stage.source is not None and stage.source.is_slow
        self.keys: Keys = (naming.UNPARTITIONED,) if is_slow else tuple(context.partition_keys)
        self.name = stage.full_name()

    @classmethod
    def partitions(cls, stage: Stage[M]) -> Partitions:
        """Return the product's keys, a range of them in one run; none for a slow source.

        A slow source has the policy of a range too: Dagster launches a range only when everything selected has it.
        """
        is_slow = stage.source is not None and stage.source.is_slow
        return None if is_slow else partitions.definition(partitions.keys_of(stage.spec)), partitions.single_run()

    def plan(self, chunk: Keys) -> Plan:
        """Say for a chunk what each key would be made from, and how to make it."""
        raise NotImplementedError

    def describe(self, done: Advance) -> Report:
        """Return what the run shows besides."""
        return Report()

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        """Return one sentence about a key of a table; it heads the key's page in Dagster."""
        del table
        return "no file has landed for this key" if record is None else f"{record.rows:,} rows"

    def work(self) -> Iterator[dg.MaterializeResult]:
        """Bring the keys up to date, and tell of each table, the stage's own first."""
        stages = [self.stage.full_name(table.name) for table in self.stage.tables]
        done = advance(self.context, self.tables, stages, self.keys, self.code, self.plan)
        shown = self.describe(done)
        for table in reversed(self.stage.tables):
            yield self.result(done, table, shown if table.name == self.stage.name else Report())

    def result(self, done: Advance, table: Table, shown: Report) -> dg.MaterializeResult:
        """Report every key of a table to Dagster, and what the run did.

        All metadata goes to the keys' own events, because Dagster lists metadata of the whole run before a key's.
        Columns are reported, which every key's event then carries, only where the asset's definition lacks them.
        """
        records = done.records[self.stage.full_name(table.name)]
        newest = None if COLUMNS in table.metadata else next(iter(records.values()), None)
        run = {
            **shown.run,
            "run_keys": len(done.keys),
            "run_memoised_keys": len(done.memoised),
            "run_rows": sum(record.rows for record in records.values()),
            "run_wall_s": done.wall_s,
            **(values.column_schema(newest.columns) if newest else {}),
        }
        for key in done.keys:
            record = records.get(key)
            metadata = _metadata(record, shown.notes.get(key), is_memoised=key in done.memoised)
            self.add_metadata(values.readable(self.summary(table.name, record), {**metadata, **run}), key, table.name)
        only = records[done.keys[0]] if len(done.keys) == len(records) == 1 else None
        return dg.MaterializeResult(
            asset_key=self.stage.key(table.name),
            data_version=dg.DataVersion(only.content_digest) if only else None,
            check_results=shown.checks,
        )


def advance(
    context: dg.AssetExecutionContext,
    tables: TableStore,
    stages: Sequence[str],
    keys: Keys,
    code: str,
    plan: Callable[[Keys], Plan],
) -> Advance:
    """Bring the keys up to date, chunk by chunk.

    The record of the last table notes `cpu_s`: a key's share of the chunk's CPU seconds, all but that table's commit.

    Args:
        context: of the run, for its log.
        tables: the product's tables.
        stages: the stage's tables, in the order of writing: the last one's record says that a key is done.
        keys: the run's keys.
        code: the stage's code digest.
        plan: says for a chunk what each key would be made from, and how to make it.
    """
    began = time.perf_counter()
    records: dict[str, dict[str, PartitionRecord]] = {stage: {} for stage in stages}
    memoised: set[str] = set()
    for place in range(0, len(keys), CHUNK_KEYS):
        chunk = keys[place : place + CHUNK_KEYS]
        began_cpu_s = time.process_time()
        intent = plan(chunk)
        found = {stage: tables.records(stage, intent.inputs) if intent.inputs else {} for stage in stages}
        done = {
            key
            for key, inputs in intent.inputs.items()
            if all(key in held and is_current(tables, held[key], inputs, code) for held in found.values())
        }
        for stage in stages:
            done -= tables.damaged(stage, {key: found[stage][key] for key in done})
        done = {key for key in done if intent.is_whole(found[stages[-1]][key])}
        stale = tuple(key for key in chunk if key in intent.inputs and key not in done)
        if stale:
            inputs = {key: intent.inputs[key] for key in stale}
            for stage, made in intent.make(stale).items():
                notes = made.notes
                if stage == stages[-1]:
                    cpu_s = round((time.process_time() - began_cpu_s) / len(stale), 4)
                    notes = {key: {**notes.get(key, {}), "cpu_s": cpu_s} for key in stale}
                for frames in _alike(made.frames):
                    found[stage] |= tables.replace(stage, frames, inputs=inputs, code=code, notes=notes)
        for stage in stages:
            records[stage] |= found[stage]
        memoised |= done
        rows = sum(found[stages[-1]][key].rows for key in stale)
        context.log.info(
            f"{stages[-1]}: {place + len(chunk)} of {len(keys)} keys, to {chunk[-1]}: {len(stale)} made with {rows:,} "
            f"rows, {len(done)} memoised, {len(chunk) - len(intent.inputs)} not landed "
            f"({time.perf_counter() - began:.1f} s)."
        )
    return Advance(keys=keys, records=records, memoised=frozenset(memoised), wall_s=time.perf_counter() - began)


def keys_by_columns(records: Mapping[str, PartitionRecord]) -> list[Keys]:
    """Return the keys in groups whose records have the same columns, for what is read at once."""
    groups: dict[frozenset[Any], list[str]] = {}
    for key, record in records.items():
        groups.setdefault(frozenset(record.columns.items()), []).append(key)
    return [tuple(group) for group in groups.values()]


def _alike(frames: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, pl.DataFrame]]:
    """Yield the frames in groups with the same columns: one commit holds no others."""
    groups: dict[frozenset[Any], dict[str, pl.DataFrame]] = {}
    for key, frame in frames.items():
        groups.setdefault(frozenset(frame.drop("key", strict=False).schema.items()), {})[key] = frame
    yield from groups.values()


def _metadata(record: PartitionRecord | None, notes: values.Metadata | None, *, is_memoised: bool) -> values.Metadata:
    if record is None:
        return {"is_landed": False}
    return {
        "is_landed": True,
        "is_memoised": is_memoised,
        "content_digest": record.content_digest,
        "table_version": record.sequence,
        **values.row_count(record.rows),
        **(record.notes if notes is None else notes),
    }
