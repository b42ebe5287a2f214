"""Read what services logged since the last time, and write it into the table of predictions.

Belongs here: files, offsets, the ledger of what was read, one reader at a time. Does not belong here: parsing lines
(`compute.ingest`), or the asset (`stages.predictions`).
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
"""How many passed-over lines one record or one table names; they are all counted."""


Records = dict[str, PartitionRecord]


@dataclass(kw_only=True)
class Ingested:
    """What one run took in.

    Attributes:
        rows: predictions that no key had before.
        records: new record of each key that was rewritten.
        left_out: lines passed over, and logged inputs that do not fit the product's fields.
    """

    rows: int = 0
    records: Records = field(default_factory=dict)
    left_out: list[ingest.LeftOut] = field(default_factory=list)

    @property
    def named(self) -> list[ingest.LeftOut]:
        """Those that a record and a table name."""
        return self.left_out[:MOST_NAMED]


@contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """Wait until no other process takes in this folder, and keep it so; yield the folder, made when absent.

    The lock is the kernel's: it ends with the process, however that ends, so nobody ever waits for the dead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


def ingest_log(product: Product, folder: Path, code: str) -> Ingested:
    """Bring the predictions up to date with the log; nothing new writes nothing. Call it inside of `exclusive`.

    Raises:
        RecordExists: another process took in the same log, on a machine that does not share the lock. Nothing is
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
    """Yield what is new in the log as lists of (file, where it begins, whole lines), in the order of files."""
    batch: list[tuple[str, int, bytes]] = []
    for place in sorted(folder.glob(f"*{SUFFIX}")):
        known = offsets.get(place.name, 0)
        if place.stat().st_size == known:
            continue
        start, data = _new_lines(place, known)
        if not data:
            continue
        batch.append((place.name, start, data))
        if sum(len(data) for _, _, data in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _new_lines(place: Path, known: int) -> tuple[int, bytes]:
    """Return where to go on in a file, and its whole lines from there.

    A service on a full disk cuts a half-written request off again: a file may be shorter than what was read of it, or
    have gone on from there. Then the last byte that was read is no line end any more and the file is read again.
    """
    with place.open("rb") as file:
        if known:
            file.seek(known - 1)
            if file.read(1) != b"\n":
                known = 0
                file.seek(0)
        data = file.read()
    return known, data[: ingest.whole_lines(data)]


def _arrivals(product: Product) -> dict[str, datetime]:
    """Return when the last row of each batch was known, over the sources that the model reads."""
    latest: dict[str, datetime] = {}
    for stage, known_at in (
        (naming.stage("validated", each.name), each.known_at) for each in product.spec.feature_sources
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
    """Return each touched key's rows, old and new, and how many are new; keys that stay as they are left out."""
    touched = {str(key): part for (key,), part in fresh.partition_by("key", as_dict=True).items()}
    records = tables.records(STAGE, touched)
    known = read(tables, STAGE, records, maker.columns)
    frames = {}
    for key, part in sorted(touched.items()):
        merged = maker.merge(known.get(key), part)
        if key not in records or content_digest(merged) != records[key].content_digest:
            frames[key] = (merged, merged.height - (known[key].height if key in known else 0))
    return frames


def replace(maker: Ingesting, tables: TableStore, code: str, frames: Mapping[str, pl.DataFrame]) -> Records:
    """Write whole keys of predictions, and return their records."""
    # Made from the log, which is no table and has no digest: what was read of it stands in the ledger.
    notes = {key: maker.notes(frame) for key, frame in frames.items()}
    return tables.replace(STAGE, frames, inputs={key: {} for key in frames}, code=code, notes=notes)
