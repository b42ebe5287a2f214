"""Read the new lines of the prediction log, and when batches arrived; the maker names this code in its digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.base import naming
from platform_assets.data import answer_rows

if TYPE_CHECKING:
    from platform_assets.store.product_store import ProductStore

STAGE = "predictions"
SUFFIX = ".jsonl"
BATCH_BYTES = 64 * 1024 * 1024
"""How much of the log is held in memory and committed together."""

MOST_NAMED = 20
"""How many skipped lines one record or one table names; all are counted."""


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
