"""Advance a stage over the keys of one run: skip finished keys, work in chunks, commit each chunk, report every key.

A key is finished when the newest record of each of the stage's tables has the same input digests and code digest, and
its rows exist and are intact. A chunk's keys are written in one commit per table; an interrupted run leaves only
complete chunks behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.wording import counted
from platform_assets.engine import key_checks, metadata, partitions
from platform_assets.engine.key_checks import KeyCheck
from platform_assets.engine.metadata import Metadata
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.stage import M, Partitions, Run, Stage, Table
from platform_assets.store.partition_records import Versions
from platform_assets.store.tables import PartitionRecord, TableStore

if TYPE_CHECKING:
    import polars as pl

Keys = tuple[str, ...]
CHUNK_KEYS = 31
"""Number of keys held in memory and committed together."""
COLUMNS = "dagster/column_schema"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A stage's plan for one chunk of keys.

    Attributes:
        inputs: input digests by name, for each key that can be computed; a missing key has not landed.
        make: computes these keys, all of them in `inputs`; returns one `StageOutput` per table, in the order of
            writing.
        versions: of the stages that a key's inputs come from, by key.
        kept: keys whose record stands although it is not up to date, because what it was made from is gone.
        is_whole: tells, from a record of the last table, whether everything it names besides rows is readable.
    """

    inputs: Mapping[str, Mapping[str, str]]
    make: Callable[[Keys], Mapping[str, StageOutput]]
    versions: Mapping[str, Versions] = field(default_factory=dict)
    kept: Collection[str] = ()
    is_whole: Callable[[PartitionRecord], bool] = lambda _: True


@dataclass(frozen=True, kw_only=True)
class Advance:
    """The outcome of a run, per key.

    Attributes:
        keys: the run's keys, in order.
        records: by table, then by key; a key that has not landed has none.
        memoised: keys that were up to date.
        wall_s: duration of the run.
    """

    keys: Keys
    records: Mapping[str, Mapping[str, PartitionRecord]]
    memoised: frozenset[str]
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Additional report content for the stage's own table.

    Attributes:
        notes: by key, replacing the notes of its record.
        facts: by key, for the table's view.
        run: about the run; shown on every key of it.
        checks: results of the stage's checks, by name and key.
    """

    notes: Mapping[str, Metadata] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    run: Metadata = field(default_factory=dict)
    checks: Mapping[str, Mapping[str, KeyCheck]] = field(default_factory=dict)


class KeyedRun(Run[M]):
    """A run over a range of keys; for a slow source, the single key of an unpartitioned table."""

    is_checked_by_key = True

    def __init__(self, stage: Stage[M], context: dg.AssetExecutionContext) -> None:
        """Prepare the run without reading anything."""
        super().__init__(stage, context)
        is_slow = stage.source is not None and stage.source.is_slow
        self.keys: Keys = (naming.UNPARTITIONED,) if is_slow else tuple(context.partition_keys)
        self.name = stage.full_name()

    @classmethod
    def partitions(cls, stage: Stage[M]) -> Partitions:
        """Return the product's keys, with a range of them in one run; no partitions for a slow source.

        A slow source has the range policy too: Dagster launches a range only when every selected asset has it.
        """
        is_slow = stage.source is not None and stage.source.is_slow
        return None if is_slow else partitions.definition(partitions.keys_of(stage.spec)), partitions.single_run()

    def plan(self, chunk: Keys) -> Plan:
        """Return each key's inputs for a chunk, and how to compute it."""
        raise NotImplementedError

    def describe(self, done: Advance) -> Report:
        """Return additional report content."""
        return Report()

    def work(self) -> Iterator[Any]:
        """Bring the keys up to date and report each table, the stage's own first, and then its checks."""
        stages = [self.stage.full_name(table.name) for table in self.stage.tables]
        done = advance(
            self.context, self.tables, stages, self.keys, code=self.code, version=self.stage.version, plan=self.plan
        )
        report = self.describe(done)
        for table in reversed(self.stage.tables):
            yield self.result(done, table, report if table.name == self.stage.name else Report())
        for name, results in report.checks.items():
            asset, is_keyed = dg.AssetKey(self.stage.key()), self.keys != (naming.UNPARTITIONED,)
            yield from key_checks.report(self.context.instance, asset, name, results, is_keyed=is_keyed)

    def result(self, done: Advance, table: Table, report: Report) -> dg.MaterializeResult:
        """Report every key of a table, and what the run did, to Dagster.

        All metadata goes to the keys' own events, because Dagster lists metadata of the whole run before a key's.
        Columns are reported, and then stored with every key's event, only where the asset's definition lacks them.
        """
        records = done.records[self.stage.full_name(table.name)]
        newest = None if COLUMNS in table.metadata else next(iter(records.values()), None)
        run = {
            **report.run,
            "run_keys": len(done.keys),
            "run_memoised_keys": len(done.memoised),
            "run_rows": sum(record.rows for record in records.values()),
            "run_wall_s": done.wall_s,
            **(metadata.column_schema(newest.columns) if newest else {}),
        }
        about: Metadata
        for key in done.keys:
            record = records.get(key)
            sentence, shown = self.view(record, report.facts.get(key), table.name)
            # Dagster marks every key of a range as made, so one whose labels have not landed must say so itself.
            notes, about = report.notes.get(key) if shown is None else shown, {"is_landed": record is not None}
            if record is not None:
                about |= {
                    "is_memoised": key in done.memoised,
                    "content_digest": record.content_digest,
                    "table_version": record.sequence,
                    "dagster/row_count": record.rows,  # by which Dagster shows and plots it
                    **(record.notes if notes is None else notes),
                }
            self.add_metadata(metadata.readable(sentence, {**about, **run}), key, table.name)
        single = records[done.keys[0]] if len(done.keys) == len(records) == 1 else None
        return dg.MaterializeResult(
            asset_key=self.stage.key(table.name),
            # Dagster would stamp one data version on all keys of a range.
            data_version=dg.DataVersion(single.content_digest) if single else None,
        )


def advance(
    context: dg.AssetExecutionContext,
    tables: TableStore,
    stages: Sequence[str],
    keys: Keys,
    *,
    code: str,
    version: str | None,
    plan: Callable[[Keys], Plan],
) -> Advance:
    """Bring the keys up to date, chunk by chunk.

    The record of the last table notes `cpu_s`: a key's share of the chunk's CPU seconds, except for that table's
    commit.

    Args:
        stages: the stage's tables, in the order of writing: the last one's record marks a key as finished.
        code: the stage's code digest.
        version: of the stage's rows; None where they have none.
        plan: returns each key's inputs for a chunk, and how to compute it.
    """
    started = time.perf_counter()
    records: dict[str, dict[str, PartitionRecord]] = {stage: {} for stage in stages}
    memoised: set[str] = set()
    for start in range(0, len(keys), CHUNK_KEYS):
        chunk = keys[start : start + CHUNK_KEYS]
        started_cpu_s = time.process_time()
        intent = plan(chunk)
        records_by_table = {stage: tables.records(stage, intent.inputs) if intent.inputs else {} for stage in stages}
        own = {} if version is None else {stages[-1]: (version,)}
        versions = {key: {**intent.versions.get(key, {}), **own} for key in intent.inputs}
        done = {
            key
            for key, inputs in intent.inputs.items()
            if key in intent.kept
            or all(
                key in table_records and table_records[key].matches(inputs, code, versions[key])
                for table_records in records_by_table.values()
            )
        }
        # A file may be lost or torn although its record stands: such a key is made again.
        for stage in stages:
            done -= tables.damaged(stage, {key: records_by_table[stage][key] for key in done - {*intent.kept}})
        done = {key for key in done if intent.is_whole(records_by_table[stages[-1]][key])}
        stale = tuple(key for key in chunk if key in intent.inputs and key not in done)
        if stale:
            inputs = {key: intent.inputs[key] for key in stale}
            for stage, result in intent.make(stale).items():
                notes = result.notes
                if stage == stages[-1]:
                    cpu_s = round((time.process_time() - started_cpu_s) / len(stale), 4)
                    notes = {key: {**notes.get(key, {}), "cpu_s": cpu_s} for key in stale}
                groups: dict[frozenset[Any], dict[str, pl.DataFrame]] = {}
                for key, frame in result.frames.items():
                    columns = frozenset(frame.drop("key", strict=False).schema.items())
                    groups.setdefault(columns, {})[key] = frame
                for frames in groups.values():  # one commit has one schema
                    records_by_table[stage] |= tables.replace(
                        stage, frames, inputs=inputs, code=code, versions=versions, notes=notes
                    )
        for stage in stages:
            records[stage] |= records_by_table[stage]
        memoised |= done
        rows = sum(records_by_table[stages[-1]][key].rows for key in stale)
        context.log.info(
            f"{stages[-1]}: {start + len(chunk)} of {counted(len(keys), 'key')}, to {chunk[-1]}: {len(stale)} made "
            f"with {counted(rows, 'row')}, {len(done)} memoised, {len(chunk) - len(intent.inputs)} not landed "
            f"({time.perf_counter() - started:.1f} s)."
        )
    return Advance(keys=keys, records=records, memoised=frozenset(memoised), wall_s=time.perf_counter() - started)
