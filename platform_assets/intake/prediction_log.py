"""Ingest what services logged since the last time into the table of predictions.

Handles files, offsets, the ledger of what was read, and the lock. `compute.ingest` parses lines.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from platform_assets import naming
from platform_assets.compute import ingest
from platform_assets.handle import Product
from platform_assets.makers.predictions import Ingesting
from platform_assets.makers.reading import read
from platform_assets.records import ingested
from platform_assets.records.ingested import INGESTED
from platform_assets.storage.tables import PartitionRecord, TableStore, content_digest

STAGE = "predictions"
SUFFIX = ".jsonl"
BATCH_BYTES = 64 * 1024 * 1024
"""How much of the log is held in memory and committed together."""
MOST_NAMED = 20
"""How many skipped lines one record or one table names; all are counted."""


Records = dict[str, PartitionRecord]


@dataclass(kw_only=True)
class Ingested:
    """What one run ingested.

    Attributes:
        rows: predictions that no key had before.
        records: the new record of each rewritten key.
        left_out: skipped lines, and logged inputs that do not fit the product's fields.
    """

    rows: int = 0
    records: Records = field(default_factory=dict)
    left_out: list[ingest.LeftOut] = field(default_factory=list)

    @property
    def named(self) -> list[ingest.LeftOut]:
        """The skipped lines that a record and a table name."""
        return self.left_out[:MOST_NAMED]


@contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """Lock this folder against other processes; yield the folder, created if missing.

    The lock is the kernel's and ends with the process, however it ends, so nobody waits for a dead one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


def ingest_log(product: Product, folder: Path, code: str) -> Ingested:
    """Bring the predictions up to date with the log; writes nothing without new lines. Call it inside `exclusive`.

    Raises:
        RecordExists: another process ingested the same log, on a machine that does not share the lock. Nothing is
            lost: materialise again.
    """
    done, maker = Ingested(), Ingesting.of(product.spec)
    tables, history, ledgers = product.tables, product.history, product.ledgers
    number, newest = history.ingested() or (0, None)
    offsets = {} if newest is None else dict(newest.offsets)
    for batch in _batches(folder, offsets):
        parsed = [maker.parse(data, name, start) for name, start, data in batch]
        frame, strangers = maker.assign_keys(parsed, {} if maker.is_timed else _arrivals(product))
        frame = maker.mark_late(frame, history.closed_at(frame["key"].unique()))
        left_out = [line for part in parsed for line in part.left_out] + strangers
        frames = _merged(maker, tables, frame)
        rows = sum(new for _, new in frames.values())
        records = replace(maker, tables, code, {key: merged for key, (merged, _) in frames.items()})
        offsets |= {name: start + len(data) for name, start, data in batch}
        number += 1
        ledgers.of(INGESTED).create_number(
            number,
            ingested.Ingested(
                offsets={name: read for name, read in offsets.items() if (folder / name).exists()},
                rows=rows,
                keys=sorted(records),
                left_out=len(left_out),
                left_out_named=left_out[:MOST_NAMED],
            ),
        )
        done.rows += rows
        done.records |= records
        done.left_out += left_out
    return done


def _batches(folder: Path, offsets: Mapping[str, int]) -> Iterator[list[tuple[str, int, bytes]]]:
    """Yield new lines in batches of (file, start offset, whole lines), in the order of files."""
    batch: list[tuple[str, int, bytes]] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        offset = offsets.get(path.name, 0)
        if path.stat().st_size == offset:
            continue
        start, data = _new_lines(path, offset)
        if not data:
            continue
        batch.append((path.name, start, data))
        if sum(len(data) for _, _, data in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _new_lines(path: Path, offset: int) -> tuple[int, bytes]:
    """Return the offset to continue at, and the whole lines from there.

    On a full disk a service truncates a half-written request: a file may be shorter than what was read of it, or have
    continued from there. Then the last byte read is no longer a line end, and the file is read again.
    """
    with path.open("rb") as file:
        if offset:
            file.seek(offset - 1)
            if file.read(1) != b"\n":
                offset = 0
                file.seek(0)
        data = file.read()
    return offset, data[: ingest.whole_lines(data)]


def _arrivals(product: Product) -> dict[str, datetime]:
    """Return when the last row of each batch was known, over the sources that the model reads."""
    latest: dict[str, datetime] = {}
    for stage, known_at in (
        (naming.stage("validated", source.name), source.known_at) for source in product.spec.feature_sources
    ):
        keys = [] if known_at is None else list(product.tables.records(stage))
        if known_at is not None and keys:
            rows = (
                product.tables.read(stage, keys, columns=[known_at])
                .drop_nulls()
                .group_by("key")
                .agg(pl.col(known_at).max())
            )
            latest |= {key: max(moment, latest.get(key, moment)) for key, moment in rows.iter_rows()}
    return latest


def _merged(maker: Ingesting, tables: TableStore, fresh: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, int]]:
    """Return each changed key's rows, old and new, and the number of new ones."""
    touched = {str(key): part for (key,), part in fresh.partition_by("key", as_dict=True).items()}
    records = tables.records(STAGE, touched)
    existing = read(tables, STAGE, records, maker.columns)
    frames = {}
    for key, part in sorted(touched.items()):
        merged = maker.merge(existing.get(key), part)
        if key not in records or content_digest(merged) != records[key].content_digest:
            frames[key] = (merged, merged.height - (existing[key].height if key in existing else 0))
    return frames


def replace(maker: Ingesting, tables: TableStore, code: str, frames: Mapping[str, pl.DataFrame]) -> Records:
    """Replace whole keys of predictions, and return their records."""
    # No inputs: the log is not a table and has no digest. The ledger records what was read of it.
    notes = {key: maker.notes(frame) for key, frame in frames.items()}
    return tables.replace(STAGE, frames, inputs={key: {} for key in frames}, code=code, notes=notes)
