"""Ingest what services logged since the last time into the table of predictions.

Handles offsets, the ledger of what was read, and the lock. `data.answer_rows` parses lines; the maker gives them keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from platform_assets.base import private_folders
from platform_assets.data import answer_rows
from platform_assets.prediction_log import barrier, parsing, predictions_maker
from platform_assets.prediction_log.claiming import Claiming
from platform_assets.prediction_log.parsing import MOST_NAMED, STAGE
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.store import durable
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records import prediction_log as log_records
from platform_assets.store.records.prediction_log import INGESTED, Attendance, Remark, Skipped
from platform_assets.store.tables import PartitionRecord, TableStore

Records = dict[str, PartitionRecord]


@dataclass(kw_only=True)
class Ingested:
    """What one run ingested.

    Attributes:
        rows: predictions that no key had before; of segments, lines with a prediction.
        records: the new record of each rewritten key.
        left_out: skipped lines, and logged inputs that do not fit the product's fields.
        left_out_lines: their number; more than are in `left_out` for segments.
        memoised: the run's keys that were up to date.
        skipped: segments that cannot be used.
        waiting: segments that only newer code reads.
        remarks: about segments that repeat bytes, or came out of order.
        attendance: by key, what the service's processes sent.
    """

    rows: int = 0
    records: Records = field(default_factory=dict)
    memoised: frozenset[str] = frozenset()
    left_out: list[answer_rows.LeftOut] = field(default_factory=list)
    left_out_lines: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    attendance: dict[str, Attendance] = field(default_factory=dict)

    @property
    def named(self) -> list[answer_rows.LeftOut]:
        """The skipped lines that a record and a table name."""
        return self.left_out[:MOST_NAMED]


@contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """Lock this folder against other processes; yield the folder, created if missing."""
    private_folders.make_folder(folder)
    with durable.locked(folder):
        yield folder


def ingest_log(product: ProductStore, folder: Path, code: str) -> Ingested:
    """Bring the predictions up to date with the log; writes nothing without new lines. Call it inside `exclusive`.

    Raises:
        RecordExists: another process ingested the same log, on a machine that does not share the lock. Nothing is
            lost: materialise again.
    """
    done, maker = Ingested(), Ingesting.for_product(product.spec)
    tables, history, ledgers = product.tables, product.history, product.ledgers
    number, newest = history.ingested() or (0, None)
    offsets = {} if newest is None else dict(newest.offsets)
    for batch in parsing.new_lines(folder, offsets):
        parsed = [maker.parse(data, name, start) for name, start, data in batch]
        frame, left_out = predictions_maker.classify(product, maker, parsed)
        frames = predictions_maker.merged(maker, tables, frame)
        rows = sum(new for _, new in frames.values())
        # Before the record of the offsets: after a kill in between the lines are read again, and their ids count once.
        records = replace(maker, tables, code, {key: merged for key, (merged, _) in frames.items()})
        offsets |= {name: start + len(data) for name, start, data in batch}
        number += 1
        ledgers.of(INGESTED).create_number(
            number,
            log_records.Ingested(
                # Without files that are gone, or each record would name every file there ever was.
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
        done.left_out_lines += len(left_out)
    return done


def ingest_local(product: ProductStore, code: str, keys: Sequence[str]) -> tuple[Ingested, Records]:
    """Ingest the local folder; return what was done, and the records of the keys."""
    maker, tables = Ingesting.for_product(product.spec), product.tables
    with exclusive(product.settings.prediction_log / product.name) as folder:
        done = ingest_log(product, folder, code)
        existing = tables.records(STAGE, keys)
        missing = {key: maker.empty() for key in keys if key not in existing}
        done.memoised = frozenset(existing) - frozenset(done.records)
        return done, existing | replace(maker, tables, code, missing)


def ingest_segments(product: ProductStore, code: str, keys: Sequence[str]) -> tuple[Ingested, Records]:
    """Ingest the segments in the store; return what was done, and the records of the keys."""
    claiming = Claiming(product, code)
    before = product.tables.records(STAGE, keys)
    # Before the ingestion, so that what attendance calls complete has been ingested.
    attended = barrier.attend(product, keys)
    claiming.take_in()
    records = claiming.fold(keys)
    done = Ingested(
        records={key: record for key, record in claiming.folded.items() if record != before.get(key)},
        memoised=frozenset(key for key, record in records.items() if record == before.get(key)),
        waiting=claiming.finished[-1].waiting if claiming.finished else [],
        attendance=barrier.record(product, attended, {key: record.rows for key, record in records.items()}),
    )
    for ingestion in claiming.finished:
        done.rows += ingestion.rows
        done.left_out += ingestion.left_out_named
        done.left_out_lines += ingestion.left_out
        done.skipped += ingestion.skipped
        done.remarks += ingestion.remarks
    return done, records


def replace(maker: Ingesting, tables: TableStore, code: str, frames: Mapping[str, pl.DataFrame]) -> Records:
    """Replace whole keys of predictions, and return their records."""
    # No inputs: the log is not a table and has no digest. The ledger records what was read of it.
    notes = {key: maker.notes(frame) for key, frame in frames.items()}
    return tables.replace(STAGE, frames, inputs={key: {} for key in frames}, code=code, notes=notes)
