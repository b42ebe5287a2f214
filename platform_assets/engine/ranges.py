"""Advance a stage over the keys of one run: skip what is done, work in chunks, commit each, tell every key.

Belongs here: memoisation and the reports that all data stages share. Does not belong here: what a stage computes.

A key is done when the newest record of each of the stage's tables was made from the same input digests by the same
code, and its rows are there and whole. A chunk's keys are written in one commit a table; a run that ends in the middle
leaves whole chunks behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import naming
from platform_assets.makers.parts import Made
from platform_assets.show import values
from platform_assets.specs.base import Source
from platform_assets.storage.adoption import is_made_from
from platform_assets.storage.tables import PartitionRecord, TableStore

if TYPE_CHECKING:
    import polars as pl

CHUNK_KEYS = 31
"""How many keys are held in memory and committed together."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stage wants to do with one chunk of keys.

    Attributes:
        inputs: digests by name, for each key that can be made; a key left out has not landed.
        make: makes the given keys, all of them in `inputs`; one `Made` a table, in the order of writing.
        is_whole: tells of a record of the last table whether what it names besides rows can be read.
    """

    inputs: Mapping[str, Mapping[str, str]]
    make: Callable[[tuple[str, ...]], Mapping[str, Made]]
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

    keys: tuple[str, ...]
    records: Mapping[str, Mapping[str, PartitionRecord]]
    memoised: frozenset[str]
    wall_s: float


def keys_of(context: dg.AssetExecutionContext, source: Source | None = None) -> tuple[str, ...]:
    """Return the run's keys, in order; a slow source has the one key of an unpartitioned table."""
    if source is not None and source.is_slow:
        return (naming.UNPARTITIONED,)
    return tuple(context.partition_keys)


def advance(
    context: dg.AssetExecutionContext,
    tables: TableStore,
    stages: Sequence[str],
    keys: tuple[str, ...],
    code: str,
    plan: Callable[[tuple[str, ...]], Plan],
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
            if all(key in held and is_made_from(tables, held[key], inputs, code) for held in found.values())
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


def report(
    context: dg.AssetExecutionContext,
    done: Advance,
    stage: str,
    asset_key: Sequence[str],
    *,
    shows_columns: bool = False,
    check_results: Sequence[dg.AssetCheckResult] = (),
) -> dg.MaterializeResult[Any]:
    """Tell Dagster what every key holds, and what the run did.

    Args:
        context: of the run.
        done: from `advance`.
        stage: which of the stage's tables.
        asset_key: the asset of that table.
        shows_columns: whether to tell the columns, which every key's event then carries; not needed where the
            asset's definition tells them.
        check_results: of the asset's checks.
    """
    records = done.records[stage]
    for key in done.keys:
        told = _told(records.get(key), is_memoised=key in done.memoised)
        if key == naming.UNPARTITIONED:
            context.add_asset_metadata(told, asset_key=asset_key)
        else:
            context.add_asset_metadata(told, asset_key=asset_key, partition_key=key)
    newest = next(iter(records.values()), None) if shows_columns else None
    only = records[done.keys[0]] if len(done.keys) == len(records) == 1 else None
    return dg.MaterializeResult(
        asset_key=asset_key,
        data_version=dg.DataVersion(only.content_digest) if only else None,
        check_results=check_results,
        metadata={
            "run_keys": len(done.keys),
            "run_memoised_keys": len(done.memoised),
            "run_rows": sum(record.rows for record in records.values()),
            "run_wall_s": round(done.wall_s, 3),
            **(values.column_schema(newest.columns) if newest else {}),
        },
    )


def columns_alike(records: Mapping[str, PartitionRecord]) -> list[tuple[str, ...]]:
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


def _told(record: PartitionRecord | None, *, is_memoised: bool) -> dict[str, Any]:
    if record is None:
        return {"is_landed": False}
    return {
        "is_landed": True,
        "is_memoised": is_memoised,
        "content_digest": record.content_digest,
        "table_version": record.sequence,
        **values.row_count(record.rows),
        **record.notes,
    }
