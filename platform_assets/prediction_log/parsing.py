"""Turn lines of the prediction log into rows with keys, next to those that keys have.

What rows are taken, and which keys they get, is decided here and in the maker, which names this code in its digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.base import naming
from platform_assets.data import answer_rows
from platform_assets.data.stage_inputs import read
from platform_assets.store.content import content_digest

if TYPE_CHECKING:
    from platform_assets.prediction_log.predictions_maker import Ingesting
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.tables import TableStore

STAGE = "predictions"
SUFFIX = ".jsonl"
BATCH_BYTES = 64 * 1024 * 1024
"""How much of the log is held in memory and committed together."""

MOST_NAMED = 20
"""How many skipped lines one record or one table names; all are counted."""


def classify(
    product: ProductStore,
    maker: Ingesting,
    parsed: Sequence[answer_rows.Parsed],
    *,
    newest_batch: str | None = None,
    until: datetime | None = None,
) -> tuple[pl.DataFrame, list[answer_rows.LeftOut]]:
    """Return the rows with key and `answer_rows.LATE`, and everything that is left out.

    Args:
        parsed: of whole lines, at least one.
        newest_batch: for numbered batches, the newest that counts as arrived, "" for none; all by default.
        until: decisions made later than this do not make an answer late; all do by default.
    """
    arrived = {} if maker.is_timed else arrivals(product)
    if newest_batch is not None:
        last = product.spec.grain.index(newest_batch) if newest_batch else -1
        arrived = {key: moment for key, moment in arrived.items() if product.spec.grain.index(key) <= last}
    frame, strangers = maker.assign_keys(parsed, arrived)
    closed = product.history.closed_at(frame["key"].unique())
    if until is not None:
        closed = {key: moment for key, moment in closed.items() if moment <= until}
    return maker.mark_late(frame, closed), [line for part in parsed for line in part.left_out] + strangers


def arrivals(product: ProductStore) -> Mapping[str, datetime]:
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


def new_lines(folder: Path, offsets: Mapping[str, int]) -> Iterator[list[tuple[str, int, bytes]]]:
    """Yield new lines of a folder's logs in batches of (file, start offset, whole lines), in the order of files."""
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
    return offset, data[: answer_rows.whole_lines(data)]


def merged(maker: Ingesting, tables: TableStore, fresh: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, int]]:
    """Return each changed key's rows, old and new, and the number of new ones."""
    touched = {str(key): part for (key,), part in fresh.partition_by("key", as_dict=True).items()}
    records = tables.records(STAGE, touched)
    existing = read(tables, STAGE, records, maker.columns)
    frames = {}
    for key, part in sorted(touched.items()):
        rows = maker.merge(existing.get(key), part)
        if key not in records or content_digest(rows) != records[key].content_digest:
            frames[key] = (rows, rows.height - (existing[key].height if key in existing else 0))
    return frames
